"""Compare inference on a device with a loop written by hand on the same device: rate, and how busy it is.

    python -m benchmarks.gpu [--device cuda] [--rows 2048] [WORK ...]

The platform's side is the stage that an inference actor runs (`InferStage`), batch after batch, as Arrow
tables; the loop calls the same network in torch on arrays that lie ready. Both get the same made-up texts,
pictures, frames and sounds, without decoding, and their vectors are compared. Busy is the share of the time
in which the GPU computes (nvidia-smi, twice a second), or of one core where the device is the CPU.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from mm_embed_kernels.contracts.features import vectors_of
from mm_embed_kernels.embedders import Embedder, create
from mm_embed_kernels.kernels.base import RESULT, Resources
from mm_embed_kernels.kernels.decoded_input import INPUT
from mm_embed_kernels.kernels.embed import InferStage

WORKS = {"text": "minilm", "image": "conse", "video": "conse_frames", "audio": "aisfx"}
_WORDS = ["harbour", "violin", "lemon", "clock", "mountain", "train", "sofa", "coffee", "snow", "bee"]
Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Measurement:
    """One work on one device.

    Attributes:
        ratio: rate of the platform over that of the loop.
        rate, loop_rate: rows per second of either.
        busy, loop_busy: share of the time in which the device computes; None where nothing tells it.
        distance: largest cosine distance between vectors of both.
    """

    work: str
    device: str
    rows: int
    ratio: float
    rate: float
    loop_rate: float
    busy: float | None
    loop_busy: float | None
    distance: float


def measure(work: str, rows: int, device: str) -> Measurement:
    """Measure one work; both sides compute everything once before, which loads models and warms the device.

    Raises:
        RuntimeError: when vectors differ by more than the embedder's tolerance.
    """
    embedder = create(WORKS[work], device=device)
    inputs = _inputs(embedder, rows)
    sides = (_platform(embedder, inputs), _loop(work, embedder))
    for side in sides:
        side(inputs)
    (ours, seconds, busy), (theirs, loop_seconds, loop_busy) = (
        _timed(side, inputs, device) for side in sides
    )
    distance = float(1 - (ours * theirs).sum(axis=1).min())
    if distance > embedder.tolerance:
        raise RuntimeError(f"{work}: cosine distance {distance:.2g}; the tolerance is {embedder.tolerance:g}")
    return Measurement(
        work,
        device,
        rows,
        loop_seconds / seconds,
        rows / seconds,
        rows / loop_seconds,
        busy,
        loop_busy,
        distance,
    )


def _inputs(embedder: Embedder, rows: int) -> Any:
    dice = np.random.default_rng(0)
    if embedder.input_shape is None:
        return [" ".join(dice.choice(_WORDS, size=dice.integers(4, 24))) for _ in range(rows)]
    shape = (rows, *embedder.input_shape)
    if embedder.input_dtype == "uint8":
        return dice.integers(0, 256, size=shape, dtype=np.uint8)
    return dice.normal(0, 0.1, size=shape).astype(embedder.input_dtype)


def _platform(embedder: Embedder, inputs: Any) -> Callable[[Any], Array]:
    """Return the stage of inference over batches as the stages before hand them on."""
    schema = pa.schema([*RESULT, pa.field("vector", pa.list_(pa.float32(), embedder.dimension))])
    rows = 1_024 if embedder.input_shape is None else 64
    stage = InferStage(embedder, schema, Resources(batch_rows=rows))
    stage.setup()
    keys = [str(number) for number in range(len(inputs))]
    if embedder.input_shape is None:
        table = pa.table({"key": keys, "text": inputs})
    else:
        values = pa.array([each.tobytes() for each in inputs], INPUT.type)
        count = len(keys)
        done = {"key": keys, "status": ["ok"] * count, "retryable": [False] * count, "seconds": [0.0] * count}
        head = pa.table({**done, "error_class": [None] * count, "message": [None] * count})
        table = (
            head.select([item.name for item in RESULT]).cast(pa.schema(RESULT)).append_column(INPUT, values)
        )
    batches = [table.slice(start, rows) for start in range(0, len(keys), rows)]
    return lambda _: np.concatenate([vectors_of(stage.run(batch)["vector"]) for batch in batches])


def _loop(work: str, embedder: Embedder) -> Callable[[Any], Array]:
    """Return the loop: the network in torch, float32, on full batches."""
    import torch

    if work == "text":
        from sentence_transformers import SentenceTransformer

        from mm_embed_kernels.embedders.minilm import model_folder

        model = SentenceTransformer(str(model_folder()), device=embedder.device, local_files_only=True)
        return lambda texts: np.asarray(
            model.encode(texts, batch_size=256, normalize_embeddings=True, show_progress_bar=False),
            np.float32,
        )
    network = (_sound_network if work == "audio" else _picture_network)(embedder.device)

    def loop(inputs: Array) -> Array:
        flat = inputs.reshape(-1, *inputs.shape[2:]) if work == "video" else inputs
        with torch.inference_mode():
            vectors = np.concatenate([network(flat[start : start + 64]) for start in range(0, len(flat), 64)])
        if work == "video":
            vectors = _unit(vectors).reshape(len(inputs), -1, vectors.shape[1]).mean(axis=1)
        return _unit(vectors)

    return loop


def _picture_network(device: str) -> Callable[[Array], Array]:
    from mm_embed_kernels.embedders import conse

    classify, classes = (
        conse.torch_classifier(device),
        conse.class_vectors(create("minilm", device=device).embed),
    )

    def network(pictures: Array) -> Array:
        likely = classify(pictures)
        top = np.argpartition(-likely, 10, axis=1)[:, :10]
        return np.asarray(np.einsum("nk,nkd->nd", np.take_along_axis(likely, top, axis=1), classes[top]))

    return network


def _sound_network(device: str) -> Callable[[Array], Array]:
    from mm_embed_kernels.embedders import aisfx

    net = aisfx.network(str(create("aisfx").weights[0])).to(device)
    features = aisfx.features_on(device)
    return lambda sounds: aisfx.pool_blocks(sounds, features, net, device)


def _unit(vectors: Array) -> Array:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


def _timed(side: Callable[[Any], Array], inputs: Any, device: str) -> tuple[Array, float, float | None]:
    """Return the vectors of a side, its seconds, and how busy it keeps the device."""
    with _gpu_samples(device) as samples:
        began, used = time.perf_counter(), time.process_time()
        vectors = side(inputs)
        seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - used
    if device == "cpu":
        return vectors, seconds, cpu_seconds / seconds
    return vectors, seconds, sum(samples) / len(samples) / 100 if samples else None


@contextmanager
def _gpu_samples(device: str) -> Iterator[list[float]]:
    """Yield a list that gets the percentages of nvidia-smi, twice a second."""
    samples: list[float] = []
    ended = threading.Event()

    def sample() -> None:
        command = ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", "--id=0"]
        while not ended.wait(0.5):
            asked = subprocess.run(command, capture_output=True, text=True, check=False)
            if asked.returncode == 0:
                samples.append(float(asked.stdout))

    thread = threading.Thread(target=sample, daemon=True)
    if device != "cpu":
        thread.start()
    try:
        yield samples
    finally:
        ended.set()
        if device != "cpu":
            thread.join()


def main() -> None:
    """Print one JSON object for each work."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("works", nargs="*", metavar="WORK", help=", ".join(WORKS), default=list(WORKS))
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--rows", type=int, default=2_048)
    given = parser.parse_args()
    for work in given.works:
        print(json.dumps(asdict(measure(work, given.rows, given.device))), flush=True)


if __name__ == "__main__":
    main()
