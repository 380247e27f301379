"""The shuffled loader with two workers against a bare Lance scan of the same rows in the same run.

Run: .venv/bin/python -m benchmarks.loader --rows 1000000
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa

from benchmarks import ratios
from benchmarks.ratios import Row
from mm_embed_kernels.contracts import feature_contract
from mm_resources.catalog import Catalog
from mm_resources.features import vector_indexes
from mm_resources.retrieval.training_set import TrainingSet
from mm_resources.storage.store import Store

_TABLE, _BLOCK = "bench.v1.text.random", 20_000
_EPOCHS = 3
_CENTRES, _SPREAD = 300, 0.5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--dimension", type=int, default=384)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=_EPOCHS)
    parser.add_argument("--pairs", type=int, default=ratios.PAIRS)
    asked = parser.parse_args()
    with _stored(asked.rows, asked.dimension) as chosen:
        scanned, loaded = _measured(chosen, asked.workers, asked.epochs, asked.pairs)
    held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    for name, found in (
        ("bare scan of the same columns", scanned),
        ("shuffled loader, batches of 256", loaded),
    ):
        rates = ", ".join(f"{asked.rows * asked.epochs / sum(epochs):,.0f}" for epochs in found)
        print(f"{name}: {rates} rows/s over {asked.epochs} epochs")
    print(
        f"{asked.rows:,} rows x {asked.dimension}, {asked.workers} workers: peak of this process {held:,.0f} MiB"
    )


def rows(share: float) -> Iterator[Row]:
    """A run of several epochs from making the loader to its last batch, and the first epoch of it alone."""
    count = max(20_000, round(400_000 * share))
    with _stored(count, 384) as chosen:
        scanned, loaded = _measured(chosen, 2, _EPOCHS, ratios.PAIRS)
    pairs = list(zip(scanned, loaded, strict=True))
    whole = [sum(theirs) / sum(ours) for theirs, ours in pairs]
    yield ratios.row(
        f"loader, shuffled, 2 workers, {_EPOCHS} epochs of {count:,} rows", whole, goal=0.8, sense=">="
    )
    yield ratios.row(
        "loader, the first epoch of them",
        [theirs[0] / ours[0] for theirs, ours in pairs],
        goal=None,
        sense=">=",
    )


@contextmanager
def _stored(rows: int, dimension: int) -> Iterator[TrainingSet]:
    """A training set of so many rows; its table has no index, since nothing is searched here."""
    with tempfile.TemporaryDirectory(prefix="mm-loader-") as folder:
        searched, vector_indexes.EXACT_ROWS = vector_indexes.EXACT_ROWS, rows + 1
        catalog = Catalog(Store(folder))
        candidate = catalog.features.write_candidate(
            _TABLE, feature_contract(dimension, []), blocks(rows, dimension)
        )
        vector_indexes.EXACT_ROWS = searched
        table = {"modality": "text", "table": _TABLE, "lance_version": candidate.lance_version}
        yield TrainingSet(
            catalog, {"dataset_version": "bench@v1", "tables": [table], "where": None, "columns": ["label"]}
        )


def _measured(
    chosen: TrainingSet, workers: int, epochs: int, pairs: int
) -> tuple[list[list[float]], list[list[float]]]:
    """Seconds of each epoch of each run, of scans and of the loader by turns; the first pair warms the disk's cache and is left out."""
    scanned, loaded = [], []
    for _ in range(pairs + 1):
        scanned.append([_seconds(_scanned(chosen)) for _ in range(epochs)])
        began = time.perf_counter()
        loader = chosen.to_torch(batch_size=256, shuffle=True, seed=0, workers=workers)
        made = time.perf_counter() - began
        taken = [_seconds(len(batch["vector"]) for batch in loader) for _ in range(epochs)]
        loaded.append([taken[0] + made, *taken[1:]])
    return scanned[1:], loaded[1:]


def _seconds(counts: Iterable[int]) -> float:
    began = time.perf_counter()
    assert sum(counts) > 0
    return time.perf_counter() - began


def _scanned(chosen: TrainingSet) -> Iterator[int]:
    (table,) = chosen.manifest["tables"]
    dataset = chosen.catalog.features.dataset(table["table"], table["lance_version"])
    for batch in dataset.scanner(
        columns=["entity_id", "feature_id", "sample_id", "vector", "label"], batch_size=1_024
    ).to_batches():
        yield batch.num_rows


def blocks(rows: int, dimension: int) -> Iterator[pa.Table]:
    """Feature rows with unit vectors around a few hundred centres, as embeddings lie, and ids as random as hashes."""
    dice = np.random.default_rng(0)
    centres = dice.standard_normal((_CENTRES, dimension), np.float32)
    for start in range(0, rows, _BLOCK):
        count = min(_BLOCK, rows - start)
        vectors = centres[dice.integers(0, _CENTRES, count)] + _SPREAD * dice.standard_normal(
            (count, dimension), np.float32
        )
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        ids = pa.array([dice.bytes(16).hex() for _ in range(count)])
        same = {
            "dataset": "bench", "version": "v1", "modality": "text", "content_hash": "0" * 64, "source_uri": "/x", "key": "x",
            "span": "full", "embedder": "random", "fingerprint": "0" * 64, "weights_hash": "0" * 64, "preprocessing": "{}",
            "split": "train", "quality_score": 1.0, "partial": False, "mime": "text/plain", "run_id": "r", "created_at": datetime.now(UTC),
        }  # fmt: skip
        yield pa.table(
            {
                **dict.fromkeys(("feature_id", "segment_id", "sample_id", "entity_id"), ids),
                **{name: [value] * count for name, value in same.items()},
                "label": [f"label {i % 10}" for i in range(count)],
                "vector": pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), dimension),
            }
        )


if __name__ == "__main__":
    main()
