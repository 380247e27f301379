"""How networks run here: batches side by side, folded and freeze_network, in memory that is not given back between layers."""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import io
import logging
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
_SUM_BYTES = 32  # of sha256, ahead of what is load_or_make
_Batch = TypeVar("_Batch")
_Found = TypeVar("_Found")


def keep_freed_memory() -> None:
    """Have glibc keep what it has freed, up to 1 GiB: to be called in a process that does nothing but inference.

    By default it maps the larger arrays of each layer anew, and the kernel clears their pages each time: half of the time of
    a network on batches of pictures.
    """
    with contextlib.suppress(AttributeError, OSError):  # another C library
        library = ctypes.CDLL(None)
        library.mallopt(_M_MMAP_THRESHOLD, _KEPT_BYTES)
        library.mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)


def freeze_network(network: Any, shape: tuple[int, ...], device: str = "cpu") -> Any:
    """A convolutional network in evaluation mode with its batch norms folded into its convolutions, channels last.

    Args:
        shape: of inputs as they lie in memory, [batch, height, width, channels]; other batches may follow.
    """
    import torch

    batch, height, width, channels = shape
    inputs = torch.zeros(batch, height, width, channels, device=device).permute(0, 3, 1, 2)
    with torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # how it is traced concerns nobody who runs it
        traced = torch.jit.trace(
            network.eval().to(device, memory_format=torch.channels_last), inputs, check_trace=False
        )
        return torch.jit.freeze(traced)


def export_onnx(network: Any, shape: tuple[int, ...]) -> bytes:
    """A network as an ONNX graph with its weights, for any number of inputs; takes seconds.

    Args:
        shape: of inputs as the network takes them, uint8 [batch, ...].
    """
    import torch

    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # as above: how it is traced
    batch = torch.export.Dim("batch")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        inputs = (torch.zeros(shape, dtype=torch.uint8),)
        program = torch.onnx.export(
            network.eval(), inputs, dynamo=True, dynamic_shapes=({0: batch},), verbose=False
        )
    assert program is not None
    graph: bytes = program.model_proto.SerializeToString()
    return graph


def onnx_session(graph: bytes, threads: int | None) -> Callable[[np.ndarray[Any, Any]], np.ndarray[Any, Any]]:
    """A graph of one input and one output as ONNX Runtime computes it on the processor; may be called from many threads.

    Args:
        threads: where there are any, each call keeps to its own; None lets a call have all cores.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    # Told how many, it does not bind its threads to cores, some of which may not be ours.
    options.intra_op_num_threads = 1 if threads else len(os.sched_getaffinity(0))
    opened = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    (asked,) = opened.get_inputs()
    return lambda batch: np.asarray(opened.run(None, {asked.name: batch})[0])


def map_batches(
    call: Callable[[_Batch], _Found], batches: Iterable[_Batch], threads: int | None
) -> list[_Found]:
    """`call` of each batch, in their order, so many at a time; each of them on one core.

    Threads that share a batch wait for the slowest of them after every layer: beside anything else that works on the machine, several
    times as long as they compute. Those with batches of their own never do.
    """
    return (
        [call(batch) for batch in batches]
        if (threads or 1) == 1
        else list(_pool(threads or 1).map(call, batches))
    )


def in_inference_mode(call: Callable[[_Batch], _Found], threads: int | None) -> Callable[[_Batch], _Found]:
    """`call` in torch's inference mode.

    Args:
        threads: where there are any, each call keeps to its own; None leaves them to torch.
    """
    import torch

    def infer(batch: _Batch) -> _Found:
        with torch.inference_mode():
            return call(batch)

    if threads:
        torch.set_num_threads(1)
    return infer


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="mm-model")


def load_or_make(name: str, make: Callable[[], bytes]) -> bytes:
    """What is dear to make, load_or_make in the user's cache folder (``XDG_CACHE_HOME``) for the next process.

    Args:
        name: of the file; must tell whatever would change what is made.
    """
    path = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "mm-features" / name
    with contextlib.suppress(OSError):  # not there
        checksum, content = (held := path.read_bytes())[:_SUM_BYTES], held[_SUM_BYTES:]
        if hashlib.sha256(content).digest() == checksum:  # not torn either
            return content
    content = make()
    with contextlib.suppress(OSError):  # a home that cannot be written costs seconds, nothing else
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(f".{os.getpid()}")
        unfinished.write_bytes(hashlib.sha256(content).digest() + content)
        unfinished.replace(path)
    return content


def load_or_make_array(name: str, make: Callable[[], np.ndarray[Any, Any]]) -> np.ndarray[Any, Any]:
    """An array of numbers that is `load_or_make`."""

    def saved() -> bytes:
        np.save(buffer := io.BytesIO(), make(), allow_pickle=False)
        return buffer.getvalue()

    return np.asarray(np.load(io.BytesIO(load_or_make(f"{name}.npy", saved)), allow_pickle=False))
