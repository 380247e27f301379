"""Shapes."""
SHAPES = {}
