"""Source kinds: one module each, discovered. See `Source`."""

from mm_resources.sources.base import Listed, Source, open_source, sources

__all__ = ["Listed", "Source", "open_source", "sources"]
