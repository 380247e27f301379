"""Search, training sets, exports and lineage of published features; may import the catalog and below."""
