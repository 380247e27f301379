"""Training sets in the formats of other tools, one module each. May import retrieval and below."""

from mm_resources.exports.base import formats
from mm_resources.exports.export import export

__all__ = ["export", "formats"]
