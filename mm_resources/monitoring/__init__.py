"""Audits, drift, version diffs, reviews and near-equal vectors; may import retrieval and below."""
