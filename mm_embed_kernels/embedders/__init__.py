"""Embedders: one module each, discovered. See `Embedder`."""

from mm_embed_kernels.embedders.base import Embedder, create, embedders

__all__ = ["Embedder", "create", "embedders"]
