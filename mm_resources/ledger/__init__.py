"""Accounting, the state of a cell, the ledger of runs. Imports registry, tables, compute and below."""
