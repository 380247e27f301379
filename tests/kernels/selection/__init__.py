"""Tests of the room `selection`."""
