"""Reports of cells as HTML pages. May import operations, curation, cells and the rooms below them."""
