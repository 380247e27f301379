"""The twelve components, one module each. May import curation, cells and the rooms below them."""
