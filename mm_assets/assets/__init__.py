"""The twelve components, one module each; none imports another. Imports curation, cells and lower."""
