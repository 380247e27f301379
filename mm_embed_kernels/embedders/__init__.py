"""Embedders, one module each, discovered. May import modalities and the rooms below them."""

from mm_embed_kernels.embedders.base import Embedder, create, embedders, kind_of, maker_of

__all__ = ["Embedder", "create", "embedders", "kind_of", "maker_of"]
