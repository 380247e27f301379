"""Cells of small pictures and sounds, published without Dagster, whose labels can be seen and heard."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import soundfile  # noqa: TID253
from PIL import Image  # noqa: TID253

from mm_embed_kernels.embedders import create
from mm_resources.catalog import Catalog
from mm_resources.cell import Cell
from mm_resources.retrieval.feature_store import FeatureStore
from tests.resources.published import publish, register

SIDE, RATE, SECONDS = 24, 8_000, 0.25
COLOURS = {"red": (220, 30, 30), "blue": (30, 30, 220)}
TONES = {"low": 220.0, "high": 1_760.0}


def picture(label: str, number: int) -> bytes:
    """Return a PNG of noise in the colour of a label."""
    dice = np.random.default_rng(number)
    pixels = np.clip(np.asarray(COLOURS[label]) + dice.normal(0, 12, (SIDE, SIDE, 3)), 0, 255)
    sink = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(sink, "PNG")
    return sink.getvalue()


def sound(label: str, number: int) -> bytes:
    """Return a WAV of a tone of the pitch of a label."""
    dice = np.random.default_rng(number)
    times = np.arange(int(RATE * SECONDS)) / RATE
    wave = 0.5 * np.sin(2 * np.pi * TONES[label] * times) + dice.normal(0, 0.02, len(times))
    sink = io.BytesIO()
    soundfile.write(sink, wave, RATE, format="WAV")
    return sink.getvalue()


def media_store(folder: Path, count: int = 40) -> FeatureStore:
    """Publish ``things@v1``: `count` pictures and as many sounds, a quarter of them in the split test."""
    catalog, embedder = Catalog.open(folder / "store"), create("wordllama")
    register(catalog, folder, "things", "v1", ["image", "audio"])
    for modality, labels, make, mime in (
        ("image", list(COLOURS), picture, "image/png"),
        ("audio", list(TONES), sound, "audio/x-wav"),
    ):
        rows: list[dict[str, Any]] = []
        for number in range(count):
            vector = np.random.default_rng(number).normal(size=8).astype(np.float32)
            label = labels[number % 2]
            rows.append(
                {
                    "sample": f"{modality}-{number}",
                    "entity": f"thing-{number}",
                    "text": None,
                    "label": label,
                    "split": "test" if number % 8 > 5 else "train",
                    "span": "full" if modality == "image" else f"seconds=0-{SECONDS}",
                    "media": make(label, number),
                    "mime": mime,
                    "vector": vector / np.linalg.norm(vector),
                }
            )
        publish(catalog, Cell("things", "v1", modality), rows, embedder)
    return FeatureStore(catalog)
