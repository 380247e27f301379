"""Upkeep, garbage collection, verification and forgetting; may import the catalog and the rooms below it."""
