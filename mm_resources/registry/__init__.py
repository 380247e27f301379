"""Frozen specs, aliases and pins. May import ingestion and the rooms below it."""
