"""Source kinds, one module each, discovered. May import objects and the rooms below them."""

from mm_resources.sources.base import Listed, Source, Unmatched, open_source, sources

__all__ = ["Listed", "Source", "Unmatched", "open_source", "sources"]
