"""Measurements on decoded sound and text; may import media, similarity and errors."""
