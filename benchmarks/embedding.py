"""The embedding stages against the loop that one would write by hand, alternately, as ratios: rate over the loop's rate.

    python -m benchmarks.embedding [--share 0.1] [--folder FOLDER] [WORK ...]

Ours is `Compute.run` of the stage's kernel in a fresh process, into a fresh cache, from its call until its vectors are stored: the
start of the model's process, its imports and weights, the sandbox, and the verification of each blob's hash are in it. Of the
loop, imports and the loading of the model are left out: decode and model in one process, float32, two threads, then one Lance
table. Both make the same vectors, which is looked at (cosine) each time.

Sentences need npm, media the packages of the demo (pip), once.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count as count_from
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks.ratios import Row, paired
from mm_embed_kernels.embedders import Embedder, create
from mm_embed_kernels.identity import content_hash
from mm_embed_kernels.sandbox.sandbox import guarded

FOLDER = Path(os.environ.get("MM_BENCH") or ".mm/bench").absolute() / "embedding"
THREADS = 2
_GOLDEN = 0.6180339887  # its multiples never come close to each other again


@dataclass(frozen=True)
class Work:
    """One line of the table.

    Attributes:
        count: segments at a share of 1.
        goals: for each precision that is measured, what the ratio should reach.
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


def rows(share: float) -> Iterator[Row]:
    yield from measured(share, list(WORKS), FOLDER)


def measured(share: float, names: list[str], folder: Path, pairs: int | None = None) -> Iterator[Row]:
    """The rows of some works. A precision that the platform does not choose here otherwise is not measured twice."""
    for name in names:
        work = WORKS[name]
        place = prepared(name, max(32, round(work.count * share)), folder)
        found: dict[str, Row] = {}
        for precision, goal in work.goals.items():
            dtype = create(work.embedder, precision=precision).precision
            title = f"{work.name}, {dtype}" + (
                ", as the platform chooses" if precision == "auto" and len(work.goals) > 1 else ""
            )
            if dtype not in found:
                found[dtype] = paired(
                    title,
                    lambda name=name, place=place, precision=precision: _alike(name, place, precision),  # type: ignore[misc]
                    lambda name=name, place=place: _side("limit", name, place, "float32"),  # type: ignore[misc]
                    goal=goal,
                    sense=">=",
                    pairs=pairs,
                )
            row = found[dtype]
            yield Row(title, row.ratio, row.low, row.high, goal, ">=")


def _side(side: str, name: str, place: Path, precision: str) -> float:
    """Run one side in a process of its own; its seconds."""
    command = [
        sys.executable,
        "-m",
        "benchmarks.embedding",
        name,
        "--side",
        side,
        "--place",
        str(place),
        "--precision",
        precision,
    ]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return float(json.loads(done.stdout.strip().splitlines()[-1])["seconds"])


def _alike(name: str, place: Path, precision: str) -> float:
    """Ours, held against the vectors that the limit has just made."""
    seconds = _side("ours", name, place, precision)
    ours, limit = (np.load(place / f"{side}.npy") for side in ("ours", "limit"))
    worst = float(1 - (ours * limit).sum(axis=1).min())
    tolerance = create(WORKS[name].embedder, precision=precision).tolerance
    if len(ours) != len(limit) or not worst <= tolerance:
        raise RuntimeError(
            f"{name}: {len(ours)} and {len(limit)} vectors, the worst pair {worst:.2g} apart; {tolerance:g} are allowed"
        )
    return seconds


# -- what is worked on: the loop's files, and the same bytes in a store with the requests of the platform


def prepared(name: str, count: int, folder: Path) -> Path:
    """A folder with the loop's ``inputs`` and the platform's ``store`` and ``requests.arrow``, made once."""
    place = folder / f"{name}-{count}"
    if not (place / "requests.arrow").exists():
        (place / "inputs").mkdir(parents=True, exist_ok=True)
        if name == "text":
            from benchmarks.sentences import sentences

            texts = list(sentences(folder / "packages", count))
            requests = [{"key": content_hash(text.encode()), "text": text} for text in dict.fromkeys(texts)]
        else:
            requests = _stored(place, list(_MAKERS[name](folder, place / "inputs", count)))
        schema = pa.schema([*((field, pa.string()) for field in ("key", "content_hash", "span", "path", "text", "file")),
                            ("offset", pa.int64()), ("size", pa.int64())])  # fmt: skip
        with pa.ipc.new_file(place / "requests.arrow", schema) as sink:
            sink.write_table(pa.Table.from_pylist(requests, schema=schema))
    return place


def _stored(place: Path, segments: list[tuple[Path, str]]) -> list[dict[str, Any]]:
    """Put the files of segments (file, span) into a store; the requests for them."""
    from mm_resources.blobs.blob_store import BlobStore
    from mm_resources.storage.store import Store

    blobs = BlobStore(Store(str(place / "store")))
    files = list(dict.fromkeys(file for file, _ in segments))
    hashes = dict(zip(files, blobs.put(file.read_bytes() for file in files), strict=True))
    where = {row["content_hash"]: row for row in blobs.index().read_all().to_pylist()}
    return [
        {"key": f"{hashes[file]}#{span}", "span": span, "file": str(file), **where[hashes[file]]}
        for file, span in segments
    ]


def _demo(folder: Path) -> Path:
    from mm_assets.demo.data import fetch

    return fetch(folder / "demo").parent


def _pictures(folder: Path, inputs: Path, count: int) -> Iterator[tuple[Path, str]]:
    """PNG of 512 x 384 out of the demo's photographs: other cuts, some mirrored."""
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
        (ImageOps.mirror(cut) if dice.random() < 0.5 else cut).save(path)
        yield path, ""


def _windows(
    folder: Path, pattern: str, seconds: float, count: int, modality: str
) -> Iterator[tuple[Path, str]]:
    """Spans of the demo's recordings that begin elsewhere each time, all media by turns."""
    from mm_embed_kernels.errors import SampleError
    from mm_embed_kernels.media.spans import span_of
    from mm_embed_kernels.modalities import get

    lasting = {}
    for path in sorted(_demo(folder).glob(pattern)):
        try:
            lasting[path] = get(modality).probe(path.read_bytes())["duration"]
        except SampleError:
            continue  # the demo's broken ones
    embedder, found = create(WORKS[modality].embedder), 0
    for number in count_from(0):
        path = list(lasting)[number % len(lasting)]
        length = min(seconds, lasting[path])
        begins = (lasting[path] - length / 2) * (number * _GOLDEN % 1)
        span = span_of(begins, min(begins + length, lasting[path]))
        if isinstance(guarded(embedder.decode, (path.read_bytes(), span)), SampleError):
            continue  # silence between sounds
        yield path, span
        found += 1
        if found == count:
            return


_MAKERS: dict[str, Callable[[Path, Path, int], Iterator[tuple[Path, str]]]] = {
    "image": _pictures,
    "audio": lambda folder, inputs, count: _windows(folder, "sounds/*/*", 10.0, count, "audio"),
    "video": lambda folder, inputs, count: _windows(folder, "videos/*/*", 2.0, count, "video"),
}


def _requests(place: Path) -> pa.Table:
    with pa.OSFile(str(place / "requests.arrow")) as source:
        return pa.ipc.open_file(source).read_all()


# -- ours


def ours(name: str, place: Path, precision: str) -> float:
    import shutil

    from mm_embed_kernels.modalities import get
    from mm_embed_kernels.sandbox.sandbox import Limits
    from mm_resources.blobs.blob_store import BlobStore
    from mm_resources.compute.cache import ComputeCache
    from mm_resources.compute.ray_session import RaySession
    from mm_resources.compute.runner import Compute
    from mm_resources.resources import default_embedder
    from mm_resources.storage.store import Store

    shutil.rmtree(place / "cache", ignore_errors=True)
    embedder = default_embedder(get(name)).model_copy(update={"precision": precision})
    requests = _requests(place)
    compute = Compute(ComputeCache(Store(str(place / "cache"))), RaySession())
    began = time.perf_counter()
    kernel = embedder.kernel(BlobStore(Store(str(place / "store"))), Limits(), embedder.open())
    report = compute.run(kernel, requests.drop(["file"]))
    seconds = time.perf_counter() - began
    if report.failed or report.computed != requests.num_rows:
        raise RuntimeError(f"{name}: {report}")
    found = compute.cache.space(kernel).reader(["key", "vector"]).read_all()
    vectors = dict(zip(found["key"].to_pylist(), _matrix(found["vector"]), strict=True))
    np.save(place / "ours.npy", np.stack([vectors[key] for key in requests["key"].to_pylist()]))
    print(f"{name}: {report.mode}, {seconds:.1f} s, {report.usage.cpu_seconds:.1f} s of CPU", file=sys.stderr)
    return seconds


def _matrix(column: pa.ChunkedArray) -> np.ndarray[Any, Any]:
    flat = column.combine_chunks()
    values: np.ndarray[Any, Any] = flat.flatten().to_numpy().reshape(len(flat), -1)
    return values


# -- the loop


def limit(name: str, place: Path) -> float:
    import lance
    import torch

    torch.set_num_threads(THREADS)
    requests = _requests(place)
    loop = _text_loop() if name == "text" else _media_loop(name)
    began, used = time.perf_counter(), time.process_time()
    with torch.inference_mode():
        vectors = loop(requests)
    column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), vectors.shape[1])
    lance.write_dataset(
        pa.table({"key": requests["key"], "vector": column}), str(place / "limit.lance"), mode="overwrite"
    )
    seconds = time.perf_counter() - began
    np.save(place / "limit.npy", vectors)
    print(f"{name}: the loop, {seconds:.1f} s, {time.process_time() - used:.1f} s of CPU", file=sys.stderr)
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


def _media_loop(name: str) -> Callable[[pa.Table], np.ndarray[Any, Any]]:
    """File after file decoded, and the model asked for each full batch."""
    embedder = create(WORKS[name].embedder)
    size, model = (_sound_model if name == "audio" else _picture_model)()
    size = size // 4 if name == "video" else size  # of four frames each

    def loop(requests: pa.Table) -> np.ndarray[Any, Any]:
        found, batch = [], []
        files, spans = requests["file"].to_pylist(), requests["span"].to_pylist()
        for number, (file, span) in enumerate(zip(files, spans, strict=True)):
            batch.append(_decoded(name, embedder, file, span))
            if len(batch) == size or number + 1 == len(files):
                found.append(_units(_pooled(name, model, np.stack(batch))))
                batch = []
        return np.concatenate(found)

    return loop


def _decoded(name: str, embedder: Embedder, file: str, span: str) -> np.ndarray[Any, Any]:
    if name != "image":
        return embedder.decode(Path(file).read_bytes(), span)
    from PIL import Image

    from mm_embed_kernels.embedders.pictures import center_crop

    with Image.open(file) as picture:
        return center_crop(picture.convert("RGB"), 256, 224)


def _pooled(
    name: str, model: Callable[[np.ndarray[Any, Any]], np.ndarray[Any, Any]], inputs: np.ndarray[Any, Any]
) -> np.ndarray[Any, Any]:
    if name != "video":
        return model(inputs)
    each = _units(model(inputs.reshape(-1, *inputs.shape[2:])))
    pooled: np.ndarray[Any, Any] = each.reshape(len(inputs), -1, each.shape[1]).mean(axis=1)
    return pooled


def _units(vectors: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


def _picture_model() -> tuple[int, Callable[[np.ndarray[Any, Any]], np.ndarray[Any, Any]]]:
    """Batch size, and timm's EfficientNet-lite0 with what ConSE makes of its classes."""
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


def _sound_model() -> tuple[int, Callable[[np.ndarray[Any, Any]], np.ndarray[Any, Any]]]:
    """Batch size, and aiSFX's network as torch runs it, on the blocks that sound."""
    from mm_embed_kernels.embedders import aisfx

    features, net = aisfx.features_on("cpu"), aisfx.network(str(create("aisfx").weights[0]))
    return 8, lambda sounds: aisfx.pooled(sounds, features, net)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("works", nargs="*", choices=list(WORKS), default=list(WORKS))
    parser.add_argument("--share", type=float, default=0.1)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=FOLDER)
    parser.add_argument("--side", choices=["ours", "limit"], help=argparse.SUPPRESS)
    parser.add_argument("--place", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--precision", default="auto", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.side:
        (name,) = given.works
        seconds = (
            ours(name, given.place, given.precision) if given.side == "ours" else limit(name, given.place)
        )
        print(json.dumps({"seconds": seconds}))
        return
    for row in measured(given.share, given.works, given.folder.absolute(), given.pairs):
        print(
            f"{row.name}: {row.ratio:.2f} ({row.low:.2f} to {row.high:.2f}), goal {row.sense} {row.goal}",
            flush=True,
        )


if __name__ == "__main__":
    main()
