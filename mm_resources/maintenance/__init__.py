"""Upkeep, garbage collection, verification, forgetting. May import catalog and the rooms below it."""
