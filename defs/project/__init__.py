"""Components of the project: the platform; `dg scaffold defs mm_assets.Dataset NAME` puts a dataset beside it."""
