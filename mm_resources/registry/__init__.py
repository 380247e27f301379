"""Frozen specs, aliases and pins. Imports ingestion, sources and storage."""
