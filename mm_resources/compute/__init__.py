"""Kernels run through the cache, inline or on Ray. May import storage and the rooms below it."""
