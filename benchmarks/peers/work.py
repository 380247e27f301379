"""The work that all peers do: files, models and the clock. Runs in the peers' environment, which knows nothing of the platform.

A script says how its library does it, as two functions of `Work` that give the number of vectors stored, and hands them to `main`.
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
    """What is embedded, with what, and where the vectors go.

    Attributes:
        files: a Parquet file with ``id`` and ``text``, or a folder of PNG.
        model: a folder that sentence-transformers loads, or the checkpoint of EfficientNet-lite0.
        out: a folder that is not there yet.
    """

    files: str
    model: str
    out: str


def main(text: Callable[[Work], int], image: Callable[[Work], int]) -> None:
    """Do the work that the command line names; print its seconds, models and the library's start included, imports not."""
    parser = argparse.ArgumentParser()
    parser.add_argument("kind", choices=("text", "image"))
    for name in ("files", "model", "out"):
        parser.add_argument(name)
    asked = vars(parser.parse_args())
    kind = asked.pop("kind")
    importlib.import_module({"text": "sentence_transformers", "image": "timm"}[kind])
    work = {"text": text, "image": image}[kind]
    began = time.perf_counter()
    stored = work(Work(**asked))
    print(json.dumps({"seconds": time.perf_counter() - began, "stored": stored}), flush=True)


class Texts:
    """MiniLM, float32."""

    def __init__(self, model: str, threads: int = CORES) -> None:
        import torch
        from sentence_transformers import SentenceTransformer

        torch.set_num_threads(threads)
        self._model = SentenceTransformer(model, device="cpu")

    def __call__(self, texts: Sequence[str]) -> np.ndarray[Any, Any]:
        """Unit vectors, float32 [n, 384]."""
        return np.asarray(
            self._model.encode(
                list(texts), batch_size=TEXT_BATCH, normalize_embeddings=True, show_progress_bar=False
            )
        )


class Images:
    """EfficientNet-lite0 without its last layer, float32."""

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
        """Of RGB pictures of Pillow's, float32 [n, 1280]."""
        import torch

        pixels = np.stack([np.asarray(picture.resize((_SIDE, _SIDE)), np.float32) for picture in pictures])
        with torch.inference_mode():
            found: np.ndarray[Any, Any] = self._net(
                torch.from_numpy(pixels.transpose(0, 3, 1, 2) / 127.5 - 1)
            ).numpy()
        return found


def pngs(folder: str) -> list[str]:
    return sorted(map(str, Path(folder).glob("*.png")))
