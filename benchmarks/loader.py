"""Compare the shuffled loader with two workers to a bare Lance scan of the same rows in the same run.

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
from mm_resources.storage.process import configure_process
from mm_resources.storage.store import Store

_TABLE, _BLOCK = "bench.v1.text.random", 20_000
_EPOCHS = 3
_CENTERS, _SPREAD = 300, 0.5


def main() -> None:
    """Print the rates of both and the peak memory of this process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--dimension", type=int, default=384)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=_EPOCHS)
    parser.add_argument("--pairs", type=int, default=ratios.PAIRS)
    arguments = parser.parse_args()
    configure_process()
    with _training_set(arguments.rows, arguments.dimension) as chosen:
        scans, loads = _measure(chosen, arguments.workers, arguments.epochs, arguments.pairs)
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    for name, runs in (
        ("bare scan of the same columns", scans),
        ("shuffled loader, batches of 256", loads),
    ):
        rates = ", ".join(f"{arguments.rows * arguments.epochs / sum(epochs):,.0f}" for epochs in runs)
        print(f"{name}: {rates} rows/s over {arguments.epochs} epochs")
    print(
        f"{arguments.rows:,} rows x {arguments.dimension}, {arguments.workers} workers: "
        f"peak of this process {peak_mib:,.0f} MiB"
    )


def rows(share: float) -> Iterator[Row]:
    """Measure several epochs, from the loader's construction to its last batch, and the first epoch alone."""
    configure_process()
    count = max(20_000, round(400_000 * share))
    with _training_set(count, 384) as chosen:
        scans, loads = _measure(chosen, 2, _EPOCHS, ratios.PAIRS)
    pairs = list(zip(scans, loads, strict=True))
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
def _training_set(rows: int, dimension: int) -> Iterator[TrainingSet]:
    """Write a training set of `rows` rows; its table has no index, since nothing searches it."""
    with tempfile.TemporaryDirectory(prefix="mm-loader-") as folder:
        default, vector_indexes.EXACT_ROWS = vector_indexes.EXACT_ROWS, rows + 1
        catalog = Catalog(Store(folder))
        candidate = catalog.features.write_candidate(
            _TABLE, feature_contract(dimension, []), blocks(rows, dimension)
        )
        vector_indexes.EXACT_ROWS = default
        table = {"modality": "text", "table": _TABLE, "lance_version": candidate.lance_version}
        yield TrainingSet(
            catalog, {"dataset_version": "bench@v1", "tables": [table], "where": None, "columns": ["label"]}
        )


def _measure(
    chosen: TrainingSet, workers: int, epochs: int, pairs: int
) -> tuple[list[list[float]], list[list[float]]]:
    """Return the seconds of each epoch of each run, for scans and for the loader.

    Scans and loader runs alternate; the first pair warms the disk's cache and is left out. The loader's first
    epoch includes its construction.
    """
    scans, loads = [], []
    for _ in range(pairs + 1):
        scans.append([_seconds(_scan(chosen)) for _ in range(epochs)])
        began = time.perf_counter()
        loader = chosen.to_torch(batch_size=256, shuffle=True, seed=0, workers=workers)
        made = time.perf_counter() - began
        taken = [_seconds(len(batch["vector"]) for batch in loader) for _ in range(epochs)]
        loads.append([taken[0] + made, *taken[1:]])
    return scans[1:], loads[1:]


def _seconds(counts: Iterable[int]) -> float:
    began = time.perf_counter()
    assert sum(counts) > 0
    return time.perf_counter() - began


def _scan(chosen: TrainingSet) -> Iterator[int]:
    (table,) = chosen.manifest["tables"]
    dataset = chosen.catalog.features.dataset(table["table"], table["lance_version"])
    for batch in dataset.scanner(
        columns=["entity_id", "feature_id", "sample_id", "vector", "label"], batch_size=1_024
    ).to_batches():
        yield batch.num_rows


def blocks(rows: int, dimension: int) -> Iterator[pa.Table]:
    """Yield feature rows with random ids and unit vectors clustered around 300 centers, as embeddings are."""
    dice = np.random.default_rng(0)
    centers = dice.standard_normal((_CENTERS, dimension), np.float32)
    for start in range(0, rows, _BLOCK):
        count = min(_BLOCK, rows - start)
        vectors = centers[dice.integers(0, _CENTERS, count)] + _SPREAD * dice.standard_normal(
            (count, dimension), np.float32
        )
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        ids = pa.array([dice.bytes(16).hex() for _ in range(count)])
        constants = {
            "dataset": "bench", "version": "v1", "modality": "text", "content_hash": "0" * 64,
            "source_uri": "/x", "key": "x", "span": "full", "embedder": "random", "fingerprint": "0" * 64,
            "weights_hash": "0" * 64, "preprocessing": "{}", "split": "train", "quality_score": 1.0,
            "partial": False, "mime": "text/plain", "run_id": "r", "created_at": datetime.now(UTC),
        }  # fmt: skip
        yield pa.table(
            {
                **dict.fromkeys(("feature_id", "segment_id", "sample_id", "entity_id"), ids),
                **{name: [value] * count for name, value in constants.items()},
                "label": [f"label {i % 10}" for i in range(count)],
                "vector": pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), dimension),
            }
        )


if __name__ == "__main__":
    main()
