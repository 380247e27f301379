"""Open, fetch and tag single objects: files, buckets, http(s) URLs, compressed ones; imports `storage`."""
