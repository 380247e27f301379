"""Hashes and sketches that find near-equal samples, and components of pairs; may import sql."""
