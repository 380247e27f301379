"""How networks run here: batches side by side, folded and frozen, in memory that is not given back between layers."""

from __future__ import annotations

import contextlib
import ctypes
import os
import warnings
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # mallopt(3)
_KEPT_BYTES = 1 << 30
_Batch = TypeVar("_Batch")
_Found = TypeVar("_Found")


def keep_memory() -> None:
    """Have glibc keep what it has freed, up to 1 GiB: to be called in a process that does nothing but inference.

    By default it maps the larger arrays of each layer anew, and the kernel clears their pages each time: half of the time of
    a network on batches of pictures.
    """
    with contextlib.suppress(AttributeError, OSError):  # another C library
        library = ctypes.CDLL(None)
        library.mallopt(_M_MMAP_THRESHOLD, _KEPT_BYTES)
        library.mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)


def frozen(network: Any, shape: tuple[int, ...], device: str = "cpu") -> Any:
    """A convolutional network in evaluation mode with its batch norms folded into its convolutions, channels last.

    Args:
        shape: of inputs as they lie in memory, [batch, height, width, channels]; other batches may follow.
    """
    import torch

    batch, height, width, channels = shape
    inputs = torch.zeros(batch, height, width, channels, device=device).permute(0, 3, 1, 2)
    with torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # how it is traced concerns nobody who runs it
        traced = torch.jit.trace(network.eval().to(device, memory_format=torch.channels_last), inputs, check_trace=False)
        return torch.jit.freeze(traced)


def side_by_side(call: Callable[[_Batch], _Found], batches: Iterable[_Batch], threads: int | None) -> list[_Found]:
    """`call` of each batch in inference mode, in their order, so many at a time; each of them on one core.

    Threads that share a batch wait for the slowest of them after every layer: beside anything else that works on the machine, several
    times as long as they compute. Those with batches of their own never do.

    Args:
        threads: None leaves one batch after the other, and its threads, to torch.
    """
    import torch

    def infer(batch: _Batch) -> _Found:
        with torch.inference_mode():
            return call(batch)

    if threads:
        torch.set_num_threads(1)
    return [infer(batch) for batch in batches] if (threads or 1) == 1 else list(_pool(threads or 1).map(infer, batches))


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="mm-model")


def kept_array(name: str, make: Callable[[], np.ndarray[Any, Any]]) -> np.ndarray[Any, Any]:
    """An array that is dear to make, kept in the user's cache folder (``XDG_CACHE_HOME``) for the next process.

    Args:
        name: of the file; must tell whatever would change the array.
    """
    path = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "mm-features" / f"{name}.npy"
    try:
        return np.asarray(np.load(path, allow_pickle=False))
    except (OSError, ValueError, EOFError):  # not there, or a torn one
        array = make()
    with contextlib.suppress(OSError):  # a home that cannot be written costs seconds, nothing else
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(f".{os.getpid()}.npy")
        np.save(unfinished, array)
        unfinished.replace(path)
    return array
