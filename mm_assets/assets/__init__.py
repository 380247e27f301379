"""The twelve components, one module each."""
