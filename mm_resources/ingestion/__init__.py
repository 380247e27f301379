"""Fetching into blobs, frozen listings, their drift. May import sources, blobs and the rooms below them."""
