"""Decisions of all rules about each sample, and splits. May import rules and the rooms below them."""
