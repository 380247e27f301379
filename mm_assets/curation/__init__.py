"""Curation across cells: splits, contamination, reviews, rules. May import cells and the rooms below it."""
