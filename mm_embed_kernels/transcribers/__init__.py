"""Transcribers, one module each, discovered; may import inference, plugins, identity and errors."""

from mm_embed_kernels.transcribers.base import Transcriber, create, transcribers

__all__ = ["Transcriber", "create", "transcribers"]
