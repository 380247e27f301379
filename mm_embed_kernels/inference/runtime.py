"""Running networks: batches in parallel, frozen graphs, and memory that is not returned between layers."""

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
_FREED_BYTES = 1 << 30
_SUM_BYTES = 32  # a sha256, in front of a cached file's content
_Batch = TypeVar("_Batch")
_Result = TypeVar("_Result")


def cpu_count() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0))


def keep_freed_memory() -> None:
    """Have glibc keep up to 1 GiB of freed memory; for processes that do nothing but inference.

    By default it maps the larger arrays of each layer again, and the kernel clears their pages each time:
    half of the time of a network on batches of pictures.
    """
    with contextlib.suppress(AttributeError, OSError):  # another C library
        library = ctypes.CDLL(None)
        library.mallopt(_M_MMAP_THRESHOLD, _FREED_BYTES)
        library.mallopt(_M_TRIM_THRESHOLD, _FREED_BYTES)


def freeze_network(network: Any, shape: tuple[int, ...], device: str = "cpu") -> Any:
    """Freeze a convolutional network: evaluation mode, channels last, batch norms folded into convolutions.

    Args:
        network: a `torch.nn.Module`.
        shape: of inputs in memory, [batch, height, width, channels]; calls may have other batches.
        device: of the network.
    """
    import torch

    batch, height, width, channels = shape
    inputs = torch.zeros(batch, height, width, channels, device=device).permute(0, 3, 1, 2)
    with torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # warnings about tracing do not concern users
        traced = torch.jit.trace(
            network.eval().to(device, memory_format=torch.channels_last), inputs, check_trace=False
        )
        return torch.jit.freeze(traced)


def export_onnx(network: Any, shape: tuple[int, ...]) -> bytes:
    """Export a network with its weights as an ONNX graph for batches of any size; takes seconds.

    Args:
        network: a `torch.nn.Module`.
        shape: of its inputs, uint8 [batch, ...].
    """
    import torch

    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # as above
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
    """Return a function that computes a graph by ONNX Runtime on the CPU; it may be called from many threads.

    Args:
        graph: ONNX, of one input and one output.
        threads: any number limits a call to one core; None lets it use all.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    # With a number of threads it does not bind them to cores, some of which may belong to other processes.
    options.intra_op_num_threads = 1 if threads else cpu_count()
    opened = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    (item,) = opened.get_inputs()
    return lambda batch: np.asarray(opened.run(None, {item.name: batch})[0])


def map_batches(
    call: Callable[[_Batch], _Result], batches: Iterable[_Batch], threads: int | None
) -> list[_Result]:
    """Return ``call(batch)`` of each batch in order, computed in parallel, each batch on one core.

    Threads that share a batch wait for the slowest of them after every layer: beside other processes, several
    times as long as they compute. Threads with batches of their own do not wait.

    Args:
        call: computes a batch.
        batches: inputs.
        threads: batches that are computed at a time; None is one.
    """
    return (
        [call(batch) for batch in batches]
        if (threads or 1) == 1
        else list(_pool(threads or 1).map(call, batches))
    )


def in_inference_mode(call: Callable[[_Batch], _Result], threads: int | None) -> Callable[[_Batch], _Result]:
    """Return `call` in torch's inference mode.

    Args:
        call: computes a batch.
        threads: any number limits torch, in this process, to one core for each call; None leaves it as it is.
    """
    import torch

    def infer(batch: _Batch) -> _Result:
        with torch.inference_mode():
            return call(batch)

    if threads:
        torch.set_num_threads(1)
    return infer


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="mm-model")


def load_or_make(name: str, make: Callable[[], bytes]) -> bytes:
    """Return a file of the user's cache folder (``XDG_CACHE_HOME``); make and store it where it is missing.

    Args:
        name: of the file; must differ wherever the content would.
        make: returns the content.
    """
    path = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "mm-features" / name
    with contextlib.suppress(OSError):  # no such file
        stored = path.read_bytes()
        checksum, content = stored[:_SUM_BYTES], stored[_SUM_BYTES:]
        if hashlib.sha256(content).digest() == checksum:  # else the file is torn
            return content
    content = make()
    with contextlib.suppress(OSError):  # without a writable home, every process makes it
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(f".{os.getpid()}")
        unfinished.write_bytes(hashlib.sha256(content).digest() + content)
        unfinished.replace(path)
    return content


def load_or_make_array(name: str, make: Callable[[], np.ndarray[Any, Any]]) -> np.ndarray[Any, Any]:
    """Return an array of numbers by `load_or_make`; ``.npy`` is added to the name."""

    def make_file() -> bytes:
        np.save(buffer := io.BytesIO(), make(), allow_pickle=False)
        return buffer.getvalue()

    return np.asarray(np.load(io.BytesIO(load_or_make(f"{name}.npy", make_file)), allow_pickle=False))
