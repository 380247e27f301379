"""Content-addressed blobs, and references into sources. May import objects and the rooms below them."""
