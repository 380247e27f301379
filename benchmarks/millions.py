"""Extrapolate the cost of ten million samples of each modality from two small cells that are measured here.

    python -m benchmarks.millions --workers 2 64

Sentences of 80 characters, PNG of 64 x 64, FLAC of 10 s at 44.1 kHz, H.264 of 2 s at 640 x 360, with the
default embedders. Prints the table of docs/explanation/cost-model.md.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from benchmarks.packages import members
from benchmarks.process_tree import run
from benchmarks.scale import PICTURES
from benchmarks.sentences import sentences
from mm_resources.catalog import Catalog
from mm_resources.cell import Cell
from mm_resources.costs.prediction import Prediction, predict_cost
from mm_resources.costs.prices import Prices
from tests.kernels.sounds import encode_audio, melody
from tests.kernels.videos import encode_video, pan

SAMPLES = 10_000_000
# Samples of the two cells that are measured for a modality.
SIZES = {"text": (500, 2_500), "image": (200, 1_000), "audio": (40, 160), "video": (20, 80)}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workers", type=int, nargs="+", default=[2, 64])
    parser.add_argument("--modalities", nargs="+", choices=list(SIZES), default=list(SIZES))
    parser.add_argument("--corpus", type=Path, default=None, help="cache of texts and pictures")
    arguments = parser.parse_args()
    print("| modality | workers | hours | CPU hours | USD | TB stored | USD a month | peak GiB | commits |")
    print("|---|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory(prefix="mm-millions-") as scratch:
        for modality in arguments.modalities:
            catalog = measure(
                arguments.corpus or Path(scratch) / "corpus", Path(scratch) / modality, modality
            )
            for workers in arguments.workers:
                print(
                    line(predict_cost(catalog, Cell("second", "v1", modality), Prices(), SAMPLES, workers)),
                    flush=True,
                )


def line(projection: Prediction) -> str:
    """Return a row of the table.

    Hours assume CPUs without other load: kernels run on all workers, everything else on one.
    """
    cpu = sum(stage.cpu_seconds for stage in projection.stages)
    kernels = sum(min(stage.kernel_cpu_seconds, stage.cpu_seconds) for stage in projection.stages)
    seconds = cpu - kernels + kernels / projection.workers
    cells = [
        projection.modality,
        f"{projection.workers}",
        f"{seconds / 3600:,.1f}",
        f"{cpu / 3600:,.0f}",
        f"{projection.price:,.1f}",
        f"{projection.stored_bytes / 1e12:,.2f}",
        f"{projection.stored_month:,.1f}",
        f"{projection.peak_bytes / 2**30:,.1f}",
        f"{projection.commits:,}",
    ]
    return f"| {' | '.join(cells)} |"


def measure(corpus: Path, folder: Path, modality: str) -> Catalog:
    """Backfill two cells of different samples in a new store and return its catalog."""
    samples = _GENERATORS[modality](corpus)
    environment = {"MM_STORE": str(folder / "store"), "DAGSTER_HOME": str(folder / "home")}
    mm = [sys.executable, "-m", "mm_assets.cli.main"]
    for name, count in zip(("first", "second"), SIZES[modality], strict=True):
        (folder / name).mkdir(parents=True)
        for file, data in itertools.islice(samples, count):
            (folder / name / file).write_bytes(data)
        source = {"name": "files", "modality": modality, "uri": f"{folder / name}/*"}
        (folder / f"{name}.yaml").write_text(json.dumps({"name": name, "version": "v1", "sources": [source]}))
        run([*mm, "register", str(folder / f"{name}.yaml")], environment)
        taken = run([*mm, "backfill", f"{name}@v1", "--json"], environment)
        print(f"{modality}, {count:,}: {taken.seconds:.0f} s", file=sys.stderr, flush=True)
    return Catalog.open(folder / "store")


def _texts(corpus: Path) -> Iterator[tuple[str, bytes]]:
    for number, text in enumerate(sentences(corpus, sum(SIZES["text"]))):
        yield f"{number:06}.txt", text.encode()


def _sounds(_corpus: Path) -> Iterator[tuple[str, bytes]]:
    with ProcessPoolExecutor(len(os.sched_getaffinity(0)), get_context("spawn")) as pool:
        yield from pool.map(_sound, range(sum(SIZES["audio"])))


def _sound(seed: int) -> tuple[str, bytes]:
    return f"{seed:06}.flac", encode_audio(melody(10.0, 44_100, seed), "FLAC", 44_100)


def _videos(_corpus: Path) -> Iterator[tuple[str, bytes]]:
    with ProcessPoolExecutor(len(os.sched_getaffinity(0)), get_context("spawn")) as pool:
        yield from pool.map(_video, range(sum(SIZES["video"])))


def _video(seed: int) -> tuple[str, bytes]:
    return f"{seed:06}.mp4", encode_video(pan(seed, rate=25, size=(640, 360)), rate=25)


_GENERATORS: dict[str, Callable[[Path], Iterator[tuple[str, bytes]]]] = {
    "text": _texts,
    "image": lambda corpus: members(corpus, *PICTURES),
    "audio": _sounds,
    "video": _videos,
}

if __name__ == "__main__":
    main()
