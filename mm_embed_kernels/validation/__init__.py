"""Bounds of a spec on sample columns, and suggestions. May import modalities and the rooms below them."""
