"""Transcribers: one module each, discovered. See `Transcriber`."""

from mm_embed_kernels.transcribers.base import Transcriber, create, transcribers

__all__ = ["Transcriber", "create", "transcribers"]
