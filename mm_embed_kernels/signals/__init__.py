"""Measurements on decoded sound and text. May import media, inference and the rooms below them."""
