"""Pages of the reference, each written from the code that it describes. Imported by `hook`, for mkdocs."""
