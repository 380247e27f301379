"""Source kinds, one module each, discovered; see `Source`. Imports `objects` and `storage`."""

from mm_resources.sources.base import Listed, Source, open_source, sources

__all__ = ["Listed", "Source", "open_source", "sources"]
