"""Hashes and sketches that find near-equal samples, and components of pairs. May import sql."""
