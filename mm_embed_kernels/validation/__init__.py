"""Bounds of a spec on the columns of a sample, and suggestions; may import modalities, spec and sql."""
