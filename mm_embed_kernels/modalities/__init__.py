"""Modalities: one module each, discovered. See `Modality`."""

from mm_embed_kernels.modalities.base import Media, Modality, Segment, get, head_of, modalities, modality_of, open_media, sniff

__all__ = ["Media", "Modality", "Segment", "get", "head_of", "modalities", "modality_of", "open_media", "sniff"]
