"""Single objects: files, buckets, URLs, compressed ones. May import storage and the rooms below it."""
