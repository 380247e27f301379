"""Modalities: one module each, discovered. See `Modality`."""

from mm_embed_kernels.modalities.base import Media, Modality, Preview, Segment, get, head_of, modalities, modality_of, open_media, sniff

__all__ = ["Media", "Modality", "Preview", "Segment", "get", "head_of", "modalities", "modality_of", "open_media", "sniff"]
