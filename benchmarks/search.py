"""Compare filtered search of concurrent clients through the feature store with direct calls of LanceDB.

Run: .venv/bin/python -m benchmarks.search --rows 200000 --clients 8
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks import ratios
from benchmarks.loader import blocks
from benchmarks.ratios import Row
from mm_embed_kernels.contracts import feature_contract
from mm_embed_kernels.contracts.features import vectors_of
from mm_embed_kernels.spec.dataset_spec import parse_spec
from mm_resources.catalog import Catalog
from mm_resources.cell import Cell
from mm_resources.features import vector_indexes
from mm_resources.registry.pins import Pin, PinnedTable
from mm_resources.retrieval.feature_store import FeatureStore
from mm_resources.retrieval.search import HIT
from mm_resources.storage.process import configure_process
from mm_resources.storage.store import Store

_TABLE = "bench.v1.text.random"
_WHERE = "label = 'label 7'"  # one row in ten


def main() -> None:
    """Print recall and the latencies of LanceDB and of the feature store."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--dimension", type=int, default=384)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--queries", type=int, default=50, help="queries of each client")
    arguments = parser.parse_args()
    configure_process()
    with _published_table(arguments.rows, arguments.dimension) as (features, pin):
        table, recall = pin.primary, _recall(features, pin)
        print(f"{arguments.rows:,} x {arguments.dimension}, {table.index}")
        print(f"recall@10 {recall.plain:.3f}, under a filter of selectivity 1%: {recall.filtered:.3f}")
        *_, times = _rounds(features, pin, arguments.clients, arguments.queries, 2)
        for name, each in zip(("LanceDB", "LanceDB, four columns", "feature store"), times, strict=True):
            p50, p99 = np.percentile(each, 50), np.percentile(each, 99)
            print(f"{name}: p50 {p50:.1f} ms, p99 {p99:.1f} ms, {arguments.clients} concurrent clients")
        print(f"p50 x {np.median(times[-1]) / np.median(times[0]):.2f}")


def rows(share: float) -> Iterator[Row]:
    """Yield p50 and p99 of equal answers, p50 against answers of four columns, and recall."""
    configure_process()
    count = max(2_000, round(200_000 * share))
    name = f"filtered search, {count:,} x 384, 8 clients"
    with _published_table(count, 384) as (features, pin):
        _, *rounds = _rounds(features, pin, 8, 100, 1 + ratios.PAIRS)
        for percentile, limit, what, goal in (
            (50, 0, "p50", 1.1),
            (99, 0, "p99", 1.3),
            (50, 1, "p50, LanceDB reads four columns", None),
        ):
            shares = (
                float(np.percentile(times[-1], percentile) / np.percentile(times[limit], percentile))
                for times in rounds
            )
            yield ratios.row(f"{name}, {what}", shares, goal=goal, sense="<=")
        yield ratios.row(f"{name}, recall@10", [_recall(features, pin).plain], goal=0.98, sense=">=")


@contextmanager
def _published_table(rows: int, dimension: int) -> Iterator[tuple[FeatureStore, Pin]]:
    with tempfile.TemporaryDirectory(prefix="mm-search-") as folder:
        features = FeatureStore(Catalog(Store(folder)))
        yield features, publish_table(features.catalog, blocks(rows, dimension), dimension)


def _recall(features: FeatureStore, pin: Pin) -> Any:
    return features.catalog.features.recall(pin.primary.table, pin.primary.lance_version, pin.primary.index)


def _rounds(
    features: FeatureStore, pin: Pin, clients: int, queries: int, rounds: int
) -> Iterator[tuple[Any, Any, Any]]:
    """Yield, for each round, the milliseconds of each query in three ways, one after the other.

    The ways: LanceDB for the columns that the feature store returns, LanceDB for four columns, the feature
    store. The first round is the warm-up.
    """
    table = pin.primary
    sampled = features.catalog.features.dataset(table.table, table.lance_version).sample(
        clients * queries, columns=["vector"]
    )["vector"]
    vectors = vectors_of(sampled).reshape(clients, queries, -1)
    opened = features.catalog.features.database.open_table(table.table)
    opened.checkout(table.lance_version)

    def direct(columns: list[str], vector: np.ndarray[Any, Any]) -> Any:
        query = opened.search(vector, vector_column_name="vector").distance_type("cosine").limit(10)
        if probes := vector_indexes.PROBES.get(table.index):
            query = query.nprobes(probes).refine_factor(vector_indexes.REFINE_FACTOR)
        return query.select([*columns, "_distance"]).where(_WHERE, prefilter=True).to_arrow()

    def ours(vector: np.ndarray[Any, Any]) -> Any:
        return features.search(vector, dataset_version="bench@v1", modality="text", k=10, where=_WHERE)

    ways = (
        partial(direct, [*HIT, "key", "text"]),
        partial(direct, ["feature_id", "sample_id", "label", "text"]),
        ours,
    )
    for _ in range(rounds):
        whole, few, answers = (_time_queries(way, vectors) for way in ways)
        yield whole, few, answers


def _time_queries(
    search: Callable[[np.ndarray[Any, Any]], Any], queries: np.ndarray[Any, Any]
) -> np.ndarray[Any, Any]:
    """Return the milliseconds of every query, with all clients running concurrently.

    Args:
        search: answers one query vector with ten rows.
        queries: query vectors, [clients, queries, dimension].
    """

    def client(vectors: np.ndarray[Any, Any]) -> list[float]:
        times = []
        for vector in vectors:
            began = time.perf_counter()
            assert search(vector).num_rows == 10
            times.append(1_000 * (time.perf_counter() - began))
        return times

    with ThreadPoolExecutor(len(queries)) as pool:
        return np.concatenate(list(pool.map(client, queries)))


def publish_table(catalog: Catalog, batches: Iterable[pa.Table], dimension: int) -> Pin:
    """Publish feature rows as the cell ``bench@v1|text``, without the stages before."""
    source = {"name": "x", "modality": "text", "uri": "/x/*.txt"}
    catalog.registry.register(
        parse_spec(json.dumps({"name": "bench", "version": "v1", "sources": [source]}), "benchmark")
    )
    candidate = catalog.features.write_candidate(_TABLE, feature_contract(dimension, []), batches)
    table = PinnedTable(
        embedder="random", settings={}, fingerprint="0", weights_hash="0", preprocessing={}, primary=True,
        table=_TABLE, lance_version=candidate.lance_version, tag="pin-1", rows=candidate.rows,
        dimension=dimension, space="random", index=candidate.index, digest=candidate.digest, recall=None,
    )  # fmt: skip
    catalog.features.tag(_TABLE, candidate.lance_version, table.tag)
    pin = Pin(1, "bench", "v1", "text", "run", datetime.now(UTC).isoformat(), "data", [table], {})
    catalog.registry.pins.publish(Cell("bench", "v1", "text"), pin)
    return pin


if __name__ == "__main__":
    main()
