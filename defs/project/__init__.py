"""Components of the project; `dg scaffold defs mm_assets.Dataset NAME` adds a dataset."""
