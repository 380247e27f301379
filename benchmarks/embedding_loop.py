"""Loops written by hand, the limit of `benchmarks.embedding`: one process, float32, two threads, one table.

Libraries and embedder modules are imported inside functions: each loop loads the model of one modality.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks.embedding_inputs import WORKS, read_requests
from mm_embed_kernels.embedders import Embedder, create

THREADS = 2
_FRAMES = 4  # of each video segment
Model = Callable[[np.ndarray[Any, Any]], np.ndarray[Any, Any]]


def run_loop(modality: str, place: Path) -> float:
    """Embed all requests of a folder and store the vectors; return seconds without imports and loading."""
    import lance
    import torch

    torch.set_num_threads(THREADS)
    requests = read_requests(place)
    loop = _text_loop() if modality == "text" else _media_loop(modality)
    began, used = time.perf_counter(), time.process_time()
    with torch.inference_mode():
        vectors = loop(requests)
    column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), vectors.shape[1])
    lance.write_dataset(
        pa.table({"key": requests["key"], "vector": column}), str(place / "limit.lance"), mode="overwrite"
    )
    seconds = time.perf_counter() - began
    np.save(place / "limit.npy", vectors)
    cpu_seconds = time.process_time() - used
    print(f"{modality}: the loop, {seconds:.1f} s, {cpu_seconds:.1f} s of CPU", file=sys.stderr)
    return seconds


def _text_loop() -> Callable[[pa.Table], np.ndarray[Any, Any]]:
    from sentence_transformers import SentenceTransformer

    from mm_embed_kernels.embedders.minilm import model_folder

    model = SentenceTransformer(str(model_folder()), device="cpu", local_files_only=True)
    return lambda requests: np.asarray(
        model.encode(
            requests["text"].to_pylist(), batch_size=64, normalize_embeddings=True, show_progress_bar=False
        ),
        np.float32,
    )


def _media_loop(modality: str) -> Callable[[pa.Table], np.ndarray[Any, Any]]:
    """Return a loop that decodes file after file and runs the model on each full batch."""
    embedder = create(WORKS[modality].embedder)
    size, model = (_sound_model if modality == "audio" else _picture_model)()
    size = size // _FRAMES if modality == "video" else size

    def loop(requests: pa.Table) -> np.ndarray[Any, Any]:
        vectors, batch = [], []
        files, spans = requests["file"].to_pylist(), requests["span"].to_pylist()
        for number, (file, span) in enumerate(zip(files, spans, strict=True)):
            batch.append(_decode(modality, embedder, file, span))
            if len(batch) == size or number + 1 == len(files):
                vectors.append(_normalize(_embed(modality, model, np.stack(batch))))
                batch = []
        return np.concatenate(vectors)

    return loop


def _decode(modality: str, embedder: Embedder, file: str, span: str) -> np.ndarray[Any, Any]:
    if modality != "image":
        return embedder.decode(Path(file).read_bytes(), span)
    from PIL import Image

    from mm_embed_kernels.embedders.pictures import center_crop

    with Image.open(file) as picture:
        return center_crop(picture.convert("RGB"), 256, 224)


def _embed(modality: str, model: Model, inputs: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return one vector for each segment; for a video the mean of its frames' unit vectors."""
    if modality != "video":
        return model(inputs)
    frames = _normalize(model(inputs.reshape(-1, *inputs.shape[2:])))
    pooled: np.ndarray[Any, Any] = frames.reshape(len(inputs), -1, frames.shape[1]).mean(axis=1)
    return pooled


def _normalize(vectors: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


def _picture_model() -> tuple[int, Model]:
    """Return the batch size, and timm's EfficientNet-lite0 with ConSE's mapping of its classes."""
    import torch
    from sentence_transformers import SentenceTransformer

    from mm_embed_kernels.embedders import conse
    from mm_embed_kernels.embedders.minilm import model_folder

    net = conse.network()
    texts = SentenceTransformer(str(model_folder()), device="cpu", local_files_only=True)
    classes = conse.class_vectors(
        lambda names: texts.encode(names, normalize_embeddings=True, show_progress_bar=False)
    )

    def model(inputs: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        pixels = torch.from_numpy(inputs).permute(0, 3, 1, 2).float()
        likely = torch.softmax(net((pixels / 255 - 0.5) / 0.5), 1).topk(10)
        vectors: np.ndarray[Any, Any] = np.einsum(
            "nk,nkd->nd", likely.values.numpy(), classes[likely.indices.numpy()]
        )
        return vectors

    return 32, model


def _sound_model() -> tuple[int, Model]:
    """Return the batch size, and aiSFX's network in torch, without the blocks that are silent."""
    from mm_embed_kernels.embedders import aisfx

    features, net = aisfx.features_on("cpu"), aisfx.network(str(create("aisfx").weights[0]))
    return 8, lambda sounds: aisfx.pool_blocks(sounds, features, net)
