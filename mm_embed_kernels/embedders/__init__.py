"""Embedders, one module each, discovered; may import modalities, inference, media and what lies below them."""

from mm_embed_kernels.embedders.base import Embedder, create, embedders, kind_of, maker_of

__all__ = ["Embedder", "create", "embedders", "kind_of", "maker_of"]
