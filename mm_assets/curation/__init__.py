"""Curation across cells: splits, contamination, reviews, changed profiles. Imports cells and lower."""
