"""Reports of cells as HTML pages. May import operations and all below, and mm_resources."""
