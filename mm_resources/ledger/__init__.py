"""Accounting, the state of a cell, ledger of runs, reviews. May import registry and the rooms below it."""
