"""The docs: their blocks, their links, and the reference that is written from the code."""
