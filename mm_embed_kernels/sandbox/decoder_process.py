"""Processes of decoders: confined to their memory, their code, and the descriptors that they are handed."""

from __future__ import annotations

import os
import resource

from mm_embed_kernels.sandbox.child_process import silence_output
from mm_embed_kernels.sandbox.confinement import confine_decoder, die_with_parent
from mm_embed_kernels.sandbox.own_code import limit_import_path

# Environment variables that a child has; the others may be secrets.
_NAMES = (
    "HOME",
    "LANG",
    "LC_ALL",
    "LD_LIBRARY_PATH",
    "LOGNAME",
    "MM_FILM_READER",
    "OPENBLAS_CORETYPE",
    "PATH",
    "PYTHONPATH",
    "TMPDIR",
    "TZ",
    "USER",
    "VIRTUAL_ENV",
)

# onnxruntime otherwise keeps an identifier of the machine on disk, and reports its use to its makers.
QUIET = {"ORT_DISABLE_TELEMETRY": "1", "PYTHONDONTWRITEBYTECODE": "1"}


def decoder_environment() -> dict[str, str]:
    """Return the environment variables of a child."""
    kept = {name: os.environ[name] for name in _NAMES if name in os.environ}
    single = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    return {**kept, **single, **QUIET}


def enter_decoder(memory_bytes: int, file_bytes: int) -> None:
    """Confine this child: its parent's lifetime, no output, limited memory, nothing but its own code."""
    die_with_parent()
    silence_output()
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    confine_decoder(limit_import_path(), file_bytes)
