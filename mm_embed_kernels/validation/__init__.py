"""Bounds of a spec on the columns of a sample, and suggestions for them; may import modalities and spec."""
