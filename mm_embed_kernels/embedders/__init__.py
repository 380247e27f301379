"""Embedders, one module each, discovered; may import modalities, inference, media and the rooms below."""

from mm_embed_kernels.embedders.base import Embedder, create, embedders, kind_of, maker_of

__all__ = ["Embedder", "create", "embedders", "kind_of", "maker_of"]
