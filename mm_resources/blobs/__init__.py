"""Content-addressed blobs of a store, and references to blobs in sources; imports `objects` and `storage`."""
