"""Curation across cells: inherited splits, contamination, review files, trial profiles. Imports cells and the packages below."""
