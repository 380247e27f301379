"""The work of all peers: files, models and the clock. Runs in the peers' environment, without the platform.

A script defines two functions, for texts and for pictures: each takes a `Work`, stores the vectors with its
library and returns their number. The script passes both to `main`.
"""

from __future__ import annotations

import argparse
import importlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

CORES = 2
TEXT_BATCH, IMAGE_BATCH = 64, 32
TEXT_SIZE, IMAGE_SIZE = 384, 1280
_SIDE = 224


@dataclass(frozen=True)
class Work:
    """Input files, model and output folder of a script.

    Attributes:
        files: a Parquet file with ``id`` and ``text``, or a folder of PNG.
        model: a folder that sentence-transformers loads, or the checkpoint of EfficientNet-lite0.
        out: a folder that does not exist yet.
    """

    files: str
    model: str
    out: str


def main(text: Callable[[Work], int], image: Callable[[Work], int]) -> None:
    """Do the work that the command line names and print its seconds.

    They include model loading and the start of the library, and exclude imports.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("kind", choices=("text", "image"))
    for name in ("files", "model", "out"):
        parser.add_argument(name)
    arguments = vars(parser.parse_args())
    kind = arguments.pop("kind")
    importlib.import_module({"text": "sentence_transformers", "image": "timm"}[kind])
    work = {"text": text, "image": image}[kind]
    began = time.perf_counter()
    stored = work(Work(**arguments))
    print(json.dumps({"seconds": time.perf_counter() - began, "stored": stored}), flush=True)


class Texts:
    """MiniLM in float32."""

    def __init__(self, model: str, threads: int = CORES) -> None:
        import torch
        from sentence_transformers import SentenceTransformer

        torch.set_num_threads(threads)
        self._model = SentenceTransformer(model, device="cpu")

    def __call__(self, texts: Sequence[str]) -> np.ndarray[Any, Any]:
        """Return unit vectors, float32 [n, 384]."""
        return np.asarray(
            self._model.encode(
                list(texts), batch_size=TEXT_BATCH, normalize_embeddings=True, show_progress_bar=False
            )
        )


class Images:
    """EfficientNet-lite0 without its last layer, in float32."""

    def __init__(self, checkpoint: str, threads: int = CORES) -> None:
        import timm
        import torch

        torch.set_num_threads(threads)
        net = timm.create_model("tf_efficientnet_lite0", pretrained=False).eval()
        values = torch.load(checkpoint, map_location="cpu", weights_only=True).values()
        net.load_state_dict(dict(zip(net.state_dict(), values, strict=True)))
        net.reset_classifier(0)
        self._net = net

    def __call__(self, pictures: Sequence[Any]) -> np.ndarray[Any, Any]:
        """Return the vectors of Pillow's RGB pictures, float32 [n, 1280]."""
        import torch

        pixels = np.stack([np.asarray(picture.resize((_SIDE, _SIDE)), np.float32) for picture in pictures])
        with torch.inference_mode():
            vectors: np.ndarray[Any, Any] = self._net(
                torch.from_numpy(pixels.transpose(0, 3, 1, 2) / 127.5 - 1)
            ).numpy()
        return vectors


def pngs(folder: str) -> list[str]:
    """Return the paths of the PNG files of a folder, in order."""
    return sorted(map(str, Path(folder).glob("*.png")))
