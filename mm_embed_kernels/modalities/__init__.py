"""Modalities: one module each, discovered. See `Modality`."""

from mm_embed_kernels.modalities.base import Modality, Segment, get, modalities, modality_of, sniff

__all__ = ["Modality", "Segment", "get", "modalities", "modality_of", "sniff"]
