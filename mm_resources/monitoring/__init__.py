"""Audits, drift, diffs, review scores, semantic duplicates. May import retrieval and the rooms below it."""
