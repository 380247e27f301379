"""Compare the shuffled loader of decoded pictures to a bare WebDataset loop over the same ones, in one run.

Both read pictures with their vectors and classes in a shuffled order and decode them with Pillow's decoders,
in one process. The loop reads the shards that `mm export --format webdataset --media whole` writes.

Run: .venv/bin/python -m benchmarks.media_loader --pictures 2000
"""

from __future__ import annotations

import argparse
import io
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa

from benchmarks import ratios
from benchmarks.loader import blocks
from benchmarks.ratios import Row
from mm_embed_kernels.contracts import feature_contract
from mm_embed_kernels.identity import content_hash
from mm_resources.blobs.blob_index import INDEX
from mm_resources.catalog import Catalog
from mm_resources.cell import Cell
from mm_resources.exports.export import export
from mm_resources.registry.pins import Pin
from mm_resources.retrieval.training_set import TrainingSet
from mm_resources.storage import lance_datasets
from mm_resources.storage.process import configure_process
from mm_resources.storage.store import Store

_CELL, _TABLE, _DIMENSION, _SIDE, _BATCH = Cell("bench", "v1", "image"), "bench.v1.image.random", 384, 256, 64
# Pictures whose bytes differ only in what Pillow skips, so that few have to be made.
_PATTERNS = 32


def main() -> None:
    """Print the rates of both, by wall time and by CPU seconds of this process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=int, default=2_000)
    parser.add_argument("--pairs", type=int, default=ratios.PAIRS)
    given = parser.parse_args()
    configure_process()
    with _folder(given.pictures) as (chosen, shards):
        for _ in range(given.pairs):
            for name, run in (("webdataset", _loop(shards)), ("loader", _loader(chosen))):
                wall, cpu = _measure(run, given.pictures)
                print(
                    f"{name}: {given.pictures / wall:,.0f} pictures/s, "
                    f"{given.pictures / cpu:,.0f} a CPU second"
                )


def rows(share: float) -> Iterator[Row]:
    """Measure an epoch of 4,000 pictures, by wall time and by CPU seconds."""
    configure_process()
    count = max(400, round(4_000 * share))
    with _folder(count) as (chosen, shards):
        # The first pair warms the disk's cache.
        pairs = [
            (_measure(_loop(shards), count), _measure(_loader(chosen), count))
            for _ in range(ratios.PAIRS + 1)
        ][1:]
    for place, unit in enumerate(("", ", by CPU seconds")):
        yield ratios.row(
            f"loader, {count:,} decoded pictures against WebDataset{unit}",
            [theirs[place] / ours[place] for theirs, ours in pairs],
            goal=None if unit else 1.0,
            sense=">=",
        )


def _measure(run: Callable[[], int], count: int) -> tuple[float, float]:
    """Return wall and CPU seconds of an epoch."""
    wall, cpu = time.perf_counter(), time.process_time()
    assert run() == count
    return time.perf_counter() - wall, time.process_time() - cpu


def _loader(chosen: TrainingSet) -> Callable[[], int]:
    loader = chosen.to_torch(_BATCH, shuffle=True, workers=1, decode="pil", verify=False)

    def run() -> int:
        count = 0
        for batch in loader:
            count += sum(picture.size == (_SIDE, _SIDE) for picture in batch["media"])
            assert batch["vector"].shape[1] == _DIMENSION
        return count

    return run


def _loop(shards: list[str]) -> Callable[[], int]:
    import webdataset

    def run() -> int:
        samples = (
            webdataset.WebDataset(shards, shardshuffle=len(shards))
            .shuffle(1_000)
            .decode("pil")
            .to_tuple("jpg", "npy", "cls")
        )
        return sum(
            picture.size == (_SIDE, _SIDE) and len(vector) == _DIMENSION for picture, vector, _ in samples
        )

    return run


@contextmanager
def _folder(count: int) -> Iterator[tuple[TrainingSet, list[str]]]:
    """Publish pictures with random vectors, and export them; yield the set and its shards."""
    with tempfile.TemporaryDirectory(prefix="mm-media-loader-") as folder:
        catalog = Catalog(Store(f"{folder}/store"))
        media = _pictures(count)
        table = pa.concat_tables(list(blocks(count, _DIMENSION)))
        changed = {
            "modality": ["image"] * count,
            "mime": ["image/jpeg"] * count,
            "content_hash": [content_hash(each) for each in media],
        }
        for name, values in changed.items():
            table = table.set_column(table.column_names.index(name), name, pa.array(values))
        contract = feature_contract(_DIMENSION, [])
        candidate = catalog.features.write_candidate(_TABLE, contract, [contract.cast(table)])
        catalog.blobs.put(media)
        found = [next(iter(catalog.blobs.index.locations(each))) for each in changed["content_hash"]]
        stage = "stages/content_blobs/bench.lance"
        located = pa.Table.from_pylist([asdict(each) for each in found], INDEX)
        lance_datasets.create(catalog.store.uri(stage), INDEX, located.to_batches())
        stages = {"content_blobs": {"table": stage, "lance_version": 1}}
        now = datetime.now(UTC).isoformat()
        catalog.registry.pins.publish(
            _CELL, Pin(1, _CELL.dataset, _CELL.version, _CELL.modality, "r", now, "d", [], {}, stages)
        )
        named = {"modality": "image", "table": _TABLE, "lance_version": candidate.lance_version, "pin": 1}
        manifest = {
            "dataset_version": "bench@v1", "tables": [named], "where": None, "columns": ["label", "split"],
            "classes": [f"label {i}" for i in range(10)],
        }  # fmt: skip
        chosen = TrainingSet(catalog, manifest)
        export(chosen, "webdataset", f"{folder}/export", media="whole", shard_bytes=8 << 20)
        yield chosen, sorted(map(str, Path(folder, "export").glob("*.tar")))


def _pictures(count: int) -> list[bytes]:
    """Return different JPEGs of photographs' size and detail, behind each the number of the picture."""
    from PIL import Image

    dice = np.random.default_rng(0)
    patterns = []
    for _ in range(_PATTERNS):
        coarse = Image.fromarray(dice.integers(0, 255, (16, 16, 3), np.uint8)).resize((_SIDE, _SIDE))
        noisy = np.asarray(coarse, np.int16) + dice.integers(-12, 12, (_SIDE, _SIDE, 3))
        sink = io.BytesIO()
        Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8)).save(sink, "JPEG", quality=85)
        patterns.append(sink.getvalue())
    # A comment segment behind the first marker makes the bytes another content.
    return [
        data[:2] + b"\xff\xfe\x00\x0a" + f"{number:08d}".encode() + data[2:]
        for number, data in ((i, patterns[i % _PATTERNS]) for i in range(count))
    ]


if __name__ == "__main__":
    main()
