"""Make the inputs of `benchmarks.embedding`: files for the loop, a store and requests for the platform.

First-party modules are imported inside functions: `benchmarks.whole` times the process of the loop from its
start, and that process does not need them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count as count_from
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from mm_embed_kernels.embedders import create
from mm_embed_kernels.identity import content_hash
from mm_embed_kernels.sandbox.sandbox import call_guarded

FOLDER = Path(os.environ.get("MM_BENCH") or ".mm/bench").absolute() / "embedding"
# Multiples of the golden ratio modulo 1 stay apart from each other: no two windows of a recording begin
# alike.
_GOLDEN = 0.6180339887


@dataclass(frozen=True)
class Work:
    """One embedding stage of the benchmark.

    Attributes:
        name: name of its rows.
        embedder: name of the embedder.
        count: segments at a share of 1.
        goals: for each measured precision, the ratio to reach.
    """

    name: str
    embedder: str
    count: int
    goals: dict[str, float]


WORKS = {
    "text": Work("text embedding stage", "minilm", 20_000, {"float32": 1.1, "auto": 2.0}),
    "image": Work("image decode + embedding stage", "conse", 3_000, {"float32": 1.3, "auto": 2.0}),
    "audio": Work("audio embedding stage", "aisfx", 1_800, {"auto": 1.2}),
    "video": Work("video embedding stage", "conse_frames", 400, {"auto": 1.2}),
}
_SCHEMA = pa.schema(
    [
        *((field, pa.string()) for field in ("key", "content_hash", "span", "path", "text", "file")),
        ("offset", pa.int64()),
        ("size", pa.int64()),
    ]
)


def prepare(modality: str, count: int, folder: Path) -> Path:
    """Make a folder with the loop's ``inputs`` and the platform's ``store`` and ``requests.arrow``.

    It is made once; later calls return the same folder.
    """
    place = folder / f"{modality}-{count}"
    if not (place / "requests.arrow").exists():
        (place / "inputs").mkdir(parents=True, exist_ok=True)
        if modality == "text":
            from benchmarks.sentences import sentences

            texts = list(sentences(folder / "packages", count))
            requests = [{"key": content_hash(text.encode()), "text": text} for text in dict.fromkeys(texts)]
        else:
            requests = _store_files(place, list(_SEGMENTS[modality](folder, place / "inputs", count)))
        with pa.ipc.new_file(place / "requests.arrow", _SCHEMA) as sink:
            sink.write_table(pa.Table.from_pylist(requests, schema=_SCHEMA))
    return place


def read_requests(place: Path) -> pa.Table:
    """Return the requests of a folder that `prepare` made, one row for each segment."""
    with pa.OSFile(str(place / "requests.arrow")) as source:
        return pa.ipc.open_file(source).read_all()


def _store_files(place: Path, segments: list[tuple[Path, str]]) -> list[dict[str, Any]]:
    """Put the files of segments (file, span) into a store; return one request for each segment."""
    from mm_resources.blobs.blob_store import BlobStore
    from mm_resources.storage.store import Store

    blobs = BlobStore(Store(str(place / "store")))
    files = list(dict.fromkeys(file for file, _ in segments))
    hashes = dict(zip(files, blobs.put(file.read_bytes() for file in files), strict=True))
    locations = {row["content_hash"]: row for row in blobs.index.rows().read_all().to_pylist()}
    return [
        {"key": f"{hashes[file]}#{span}", "span": span, "file": str(file), **locations[hashes[file]]}
        for file, span in segments
    ]


def _demo(folder: Path) -> Path:
    from mm_assets.demo.data import fetch

    return fetch(folder / "demo").parent


def _picture_segments(folder: Path, inputs: Path, count: int) -> Iterator[tuple[Path, str]]:
    """Write PNG of 512 x 384 cut from the demo's photographs at random, half of them mirrored.

    They carry no colour profile: the loop converts none, and would embed other pixels.
    """
    from PIL import Image, ImageOps

    dice = np.random.default_rng(0)
    photographs = [
        Image.open(path).convert("RGB")
        for path in sorted(_demo(folder).glob("images/*/0*"))
        if "broken" not in path.parts
    ]
    large = [picture for picture in photographs if min(picture.size) >= 200]
    for number in range(count):
        picture = large[number % len(large)]
        side = dice.uniform(0.5, 1.0)
        width, height = side * picture.width, side * picture.height
        left, top = dice.uniform(0, picture.width - width), dice.uniform(0, picture.height - height)
        cut = picture.resize(
            (512, 384), Image.Resampling.BICUBIC, box=(left, top, left + width, top + height)
        )
        path = inputs / f"{number:06d}.png"
        (ImageOps.mirror(cut) if dice.random() < 0.5 else cut).save(path, icc_profile=None)
        yield path, ""


def _sound_segments(folder: Path, _inputs: Path, count: int) -> Iterator[tuple[Path, str]]:
    return _windows(folder, "sounds/*/*", 10.0, count, "audio")


def _video_segments(folder: Path, _inputs: Path, count: int) -> Iterator[tuple[Path, str]]:
    return _windows(folder, "videos/*/*", 2.0, count, "video")


def _windows(
    folder: Path, pattern: str, seconds: float, count: int, modality: str
) -> Iterator[tuple[Path, str]]:
    """Yield spans of the demo's recordings, all media by turns, each span with another beginning."""
    from mm_embed_kernels.errors import SampleError
    from mm_embed_kernels.media.spans import span_of
    from mm_embed_kernels.modalities import get

    durations = {}
    for path in sorted(_demo(folder).glob(pattern)):
        try:
            durations[path] = get(modality).probe(path.read_bytes())["duration"]
        except SampleError:
            continue  # the demo has broken media on purpose
    embedder, made = create(WORKS[modality].embedder), 0
    for number in count_from(0):
        path = list(durations)[number % len(durations)]
        length = min(seconds, durations[path])
        begins = (durations[path] - length / 2) * (number * _GOLDEN % 1)
        span = span_of(begins, min(begins + length, durations[path]))
        if isinstance(call_guarded(embedder.decode, (path.read_bytes(), span)), SampleError):
            continue  # a silent span
        yield path, span
        made += 1
        if made == count:
            return


_SEGMENTS: dict[str, Callable[[Path, Path, int], Iterator[tuple[Path, str]]]] = {
    "image": _picture_segments,
    "audio": _sound_segments,
    "video": _video_segments,
}
