"""Transcribers, one module each, discovered. May import inference, plugins and the rooms below them."""

from mm_embed_kernels.transcribers.base import Transcriber, create, transcribers

__all__ = ["Transcriber", "create", "transcribers"]
