"""The shuffled loader with two workers against a bare Lance scan of the same rows in the same run.

Run: .venv/bin/python -m benchmarks.loader --rows 1000000
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa

from mm_embed_kernels.contracts import feature_contract
from mm_resources import indexes
from mm_resources.features import FeatureStore
from mm_resources.loader import WINDOW_ROWS
from mm_resources.store import Store
from mm_resources.training import TrainingSet

_TABLE, _BLOCK = "bench.v1.text.random", 20_000
_CENTRES, _SPREAD = 300, 0.5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--dimension", type=int, default=384)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=2, help="each measured so often, the best counts")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="mm-loader-") as folder:
        indexes.EXACT_ROWS = asked.rows + 1  # nothing is searched here
        features = FeatureStore(Store(folder))
        contract = feature_contract(asked.dimension, [])
        version, *_ = features.write_candidate(_TABLE, contract, blocks(asked.rows, asked.dimension))
        chosen = TrainingSet(
            features,
            {
                "dataset_version": "bench@v1",
                "tables": [{"modality": "text", "table": _TABLE, "lance_version": version}],
                "where": None,
                "columns": ["label"],
            },
        )
        scans, loads = [], []
        for _ in range(asked.rounds):
            scans.append(_rate(_scanned(features, version), asked.rows))
            # What both workers read ahead until the slower one has started.
            loads.append(_rate(_loaded(chosen, asked.workers), asked.rows, 4 * max(1, asked.workers) * WINDOW_ROWS))
        scan, load = max(scans), max(loads)
        held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(f"bare scan of the same columns: {scan:,.0f} rows/s; {', '.join(f'{rate:,.0f}' for rate in scans)}")
        print(
            f"shuffled loader, {asked.workers} workers, batches of 256: {load:,.0f} rows/s; {', '.join(f'{rate:,.0f}' for rate in loads)}"
        )
        print(f"{asked.rows:,} rows x {asked.dimension}: ratio {load / scan:.2f}; peak of this process {held:,.0f} MiB")


def _rate(counts: Iterator[int], rows: int, first: int = 1) -> float:
    """Rows a second once `first` rows have come: to start processes takes seconds, however many rows there are."""
    seen, began, skipped = 0, 0.0, 0
    for count in counts:
        seen += count
        if not began and seen >= first:
            began, skipped = time.perf_counter(), seen
    assert seen == rows, (seen, rows)
    return (seen - skipped) / (time.perf_counter() - began)


def _scanned(features: FeatureStore, version: int) -> Iterator[int]:
    dataset = features.dataset(_TABLE, version)
    for batch in dataset.scanner(columns=["entity_id", "feature_id", "sample_id", "vector", "label"], batch_size=1_024).to_batches():
        yield batch.num_rows


def _loaded(chosen: TrainingSet, workers: int) -> Iterator[int]:
    for batch in chosen.to_torch(batch_size=256, shuffle=True, seed=0, workers=workers):
        yield len(batch["vector"])


def blocks(rows: int, dimension: int) -> Iterator[pa.Table]:
    """Feature rows with unit vectors around a few hundred centres, as embeddings lie, and ids as random as hashes."""
    dice = np.random.default_rng(0)
    centres = dice.standard_normal((_CENTRES, dimension), np.float32)
    for start in range(0, rows, _BLOCK):
        count = min(_BLOCK, rows - start)
        vectors = centres[dice.integers(0, _CENTRES, count)] + _SPREAD * dice.standard_normal((count, dimension), np.float32)
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
