"""Frozen listings, their drift, and fetching into blobs; imports `sources`, `blobs` and rooms below."""
