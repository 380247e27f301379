"""Processes of models: confined before they load anything, as far as models can be.

A model reads its weights and many files of the machine, writes caches, and drives devices. It sees no bytes
of strangers, only arrays and texts.
"""

from __future__ import annotations

import contextlib
import glob
import os
import re
from collections.abc import Iterable
from pathlib import Path

from mm_embed_kernels.sandbox.channel import loads
from mm_embed_kernels.sandbox.confinement import confine_model, die_with_parent
from mm_embed_kernels.sandbox.decoder_process import QUIET
from mm_embed_kernels.sandbox.own_code import limit_import_path
from mm_embed_kernels.urls import strip_secrets

# Variables that libraries of models read.
_NAMES = (
    *("HOME", "LANG", "LOGNAME", "PATH", "TZ", "USER", "VIRTUAL_ENV", "XDG_CACHE_HOME", "GLIBC_TUNABLES"),
    *("MM_FILM_READER", "MM_PRECISION", "MM_SQL_MEMORY"),
)
_PREFIXES = (
    *("CUDA_", "CUBLAS_", "CUDNN_", "NVIDIA_", "NCCL_", "HIP_", "HSA_", "ROCR_", "ROCM_"),
    *("TORCH", "PYTORCH_", "TRITON_", "ORT_", "TRANSFORMERS_", "TOKENIZERS_", "HF_", "HUGGINGFACE_"),
    *("OMP_", "MKL_", "KMP_", "OPENBLAS_", "NUMEXPR_", "MALLOC_", "LC_", "LD_", "PYTHON", "LANCE_"),
)
_SECRET = re.compile(r"TOKEN(?!IZERS_)|SECRET|PASSW|KEY|CREDENTIAL|AUTH", re.IGNORECASE)
# Variables that name the folders in which libraries keep what they compile.
_COMPILED = ("TRITON_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR", "NUMBA_CACHE_DIR", "CUDA_CACHE_PATH")
# What they read beside their code: of processes, devices and the system's libraries.
_READABLE = (
    *("/proc/driver", "/proc/devices", "/proc/modules", "/proc/version", "/proc/sys/kernel", "/proc/sys/vm"),
    *("/sys", "/usr/share", "/usr/local/cuda", "/opt/rocm", "/etc/OpenCL", "/etc/ld.so.conf.d"),
)
_DEVICES = ("/dev/null", "/dev/nvidia*", "/dev/dri", "/dev/kfd", "/dev/dxg")


def model_environment(scratch: str) -> dict[str, str]:
    """Return the variables of a model's process; those that may be secrets are left out.

    Args:
        scratch: folder for temporary files.
    """
    kept = {
        name: value
        for name, value in os.environ.items()
        if (name in _NAMES or name.startswith(_PREFIXES))
        and not _SECRET.search(name)
        and strip_secrets(value) == value
    }
    own = _own_cache()
    compiled = {name: os.path.join(own, name.partition("_")[0].lower()) for name in _COMPILED}
    return {**kept, **compiled, "TMPDIR": scratch, **QUIET}


def enter_model(prepare: bytes, weights: Iterable[str], scratch: str) -> None:
    """Confine this child, then prepare it for models.

    Args:
        prepare: pickle of a function, or of None.
        weights: folders of the model's files.
        scratch: folder for temporary files.
    """
    die_with_parent()
    caches = _caches()
    readable = [*limit_import_path(), *map(Path, (*_READABLE, *weights))]
    devices = [path for pattern in _DEVICES for path in glob.glob(pattern)]
    confine_model(readable, map(Path, (*caches, *devices, scratch)))
    # Imported here, since libraries start threads, which are confined only where they start later.
    import threading

    from tqdm import tqdm

    # By default tqdm takes a semaphore of the system, which leaks when the process is killed, as all of these
    # are.
    tqdm.set_lock(threading.RLock())
    called = loads(prepare)
    if called is not None:
        called()


def _caches() -> list[str]:
    """Folders in which models keep what they have compiled."""
    own = _own_cache()
    with contextlib.suppress(OSError):  # without a writable home, every process compiles it
        os.makedirs(own, exist_ok=True)
    return [own, *map(os.path.expanduser, ("~/.nv/ComputeCache", "~/.triton"))]


def _own_cache() -> str:
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return os.path.join(home, "mm-features")
