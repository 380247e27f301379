"""Compare the service (`mm serve`) with the feature store in the process, on the same queries in one run.

Run: .venv/bin/python -m benchmarks.serve --rows 200000 --clients 8
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import httpx
import numpy as np
import pyarrow as pa

from benchmarks import ratios
from benchmarks.ratios import Row
from benchmarks.search import _WHERE, _published_table
from mm_embed_kernels.contracts import CURATED_SAMPLES
from mm_embed_kernels.contracts.features import vectors_of
from mm_embed_kernels.embedders import create
from mm_resources.catalog import Catalog
from mm_resources.cell import Cell
from mm_resources.registry.pins import Pin
from mm_resources.retrieval.feature_store import FeatureStore
from mm_resources.storage.process import configure_process
from mm_resources.tables.stage_refs import StageMeta
from tests.processes import free_port

# Clients that ask by texts, and queries of all together.
_TEXT_CLIENTS, _TEXTS = 16, 256
_ASKED = {"dataset_version": "bench@v1", "modality": "text"}


def main() -> None:
    """Print the rows for a table of a given size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--samples", type=int, help="samples behind the pages; by default the rows")
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--queries", type=int, default=50, help="queries of each client")
    parser.add_argument("--rounds", type=int, default=1)
    arguments = parser.parse_args()
    sizes = (arguments.rows, arguments.samples or arguments.rows)
    for row in _rows(sizes, arguments.clients, arguments.queries, arguments.rounds):
        print(f"{row.name}: {row.ratio:.2f} ({row.low:.2f} to {row.high:.2f}), goal {row.sense} {row.goal}")


def rows(share: float) -> Iterator[Row]:
    """Yield p50 and p99 of filtered searches, the time of pages, and the rate of texts asked together."""
    count = max(2_000, round(200_000 * share))
    yield from _rows((count, 5 * count), 8, 100, ratios.PAIRS)


def _rows(sizes: tuple[int, int], clients: int, queries: int, rounds: int) -> Iterator[Row]:
    """Yield the rows for a number of vectors, and of samples behind the pages."""
    configure_process()
    count, samples = sizes
    name = f"service, {count:,} x 384, {clients} clients"
    with (
        _published_table(count, 384) as (features, bare),
        _service(_publish_samples(features, bare, samples).catalog.store.root) as address,
    ):
        table = bare.primary
        sampled = features.catalog.features.dataset(table.table, table.lance_version).sample(
            clients * queries, columns=["vector"]
        )
        vectors = vectors_of(sampled["vector"]).reshape(clients, queries, -1)
        ways = (_direct(features), _remote(address))
        for way in ways:
            _times(way, vectors[:, :3])
        measured = [[_times(way, vectors) for way in ways] for _ in range(rounds)]
        for percentile, goal in ((50, 1.25), (99, 1.5)):
            shares = [
                float(np.percentile(ours, percentile) / np.percentile(own, percentile))
                for own, ours in measured
            ]
            yield ratios.row(f"{name}, p{percentile} over that in the process", shares, goal=goal, sense="<=")
        for view in ("/", "/samples?version=bench@v1&modality=text"):
            pages = _page_times(address, view, rounds)
            yield ratios.row(f"page {view[:8]}, {samples:,} samples, over 50 ms", pages, goal=1.0, sense="<=")
        rates = [
            _text_rate(address, _TEXT_CLIENTS, i) / _text_rate(address, 1, -1 - i) for i in range(rounds)
        ]
        yield ratios.row(
            f"texts of {_TEXT_CLIENTS} clients over one after the other", rates, goal=3.0, sense=">="
        )


def _direct(features: FeatureStore) -> Callable[[np.ndarray[Any, Any]], int]:
    def search(vector: np.ndarray[Any, Any]) -> int:
        return features.search(vector, **_ASKED, k=10, where=_WHERE).num_rows

    return search


def _remote(address: str) -> Callable[[np.ndarray[Any, Any]], int]:
    client = httpx.Client(base_url=address, timeout=60)

    def search(vector: np.ndarray[Any, Any]) -> int:
        body = {**_ASKED, "query": vector.tolist(), "k": 10, "where": _WHERE}
        answer = client.post("/v1/search", json=body)
        answer.raise_for_status()
        return len(answer.json()["hits"])

    return search


def _times(
    search: Callable[[np.ndarray[Any, Any]], int], queries: np.ndarray[Any, Any]
) -> np.ndarray[Any, Any]:
    """Return the milliseconds of every query, with all clients running concurrently."""

    def client(vectors: np.ndarray[Any, Any]) -> list[float]:
        times = []
        for vector in vectors:
            began = time.perf_counter()
            assert search(vector) == 10
            times.append(1_000 * (time.perf_counter() - began))
        return times

    with ThreadPoolExecutor(len(queries)) as pool:
        return np.array([each for times in pool.map(client, queries) for each in times])


def _page_times(address: str, view: str, rounds: int) -> list[float]:
    """Return the times of a page, warm, as multiples of 50 ms; of each round the median of ten."""
    with httpx.Client(base_url=address, timeout=60) as client:
        client.get(view).raise_for_status()
        shares = []
        for _ in range(rounds):
            times = []
            for _ in range(10):
                began = time.perf_counter()
                client.get(view).raise_for_status()
                times.append((time.perf_counter() - began) / 0.05)
            shares.append(float(np.median(times)))
        return shares


def _text_rate(address: str, clients: int, seed: int) -> float:
    """Return the text queries that are answered in a second, none of them asked before."""

    def client(number: int) -> None:
        with httpx.Client(base_url=address, timeout=120) as http:
            for i in range(_TEXTS // clients):
                query = f"a heron number {seed} {number} {i} stands in a pond at dusk and waits for fish"
                http.post("/v1/search", json={**_ASKED, "query": query, "k": 10}).raise_for_status()

    began = time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        list(pool.map(client, range(clients)))
    return _TEXTS / (time.perf_counter() - began)


def _place(catalog: Catalog, cell: Cell) -> dict[str, Any]:
    """Return the published samples as a pin names them."""
    state = catalog.tables.state("curated_samples", cell)
    assert state is not None
    return state.place


def _publish_samples(features: FeatureStore, bare: Pin, count: int) -> FeatureStore:
    """Publish the table again as a real cell is: with its curated samples, and a model that reads texts."""
    catalog, cell = features.catalog, bare.cell
    curated, number = "curated_samples", catalog.tables.fence("curated_samples", cell)
    written = catalog.tables.write(curated, cell, CURATED_SAMPLES, _samples(count))
    meta = StageMeta("d", "i", count, count, 0, 0, 0, "e", "", {}, "r", bare.published_at, samples=count)
    catalog.tables.commit(curated, cell, written, meta, number)
    model = create("minilm")
    table = replace(
        bare.primary,
        embedder=model.name,
        fingerprint=model.fingerprint,
        weights_hash=model.weights_hash,
        preprocessing=model.preprocessing,
        space=model.space,
    )
    states = ("discovered", "ingested", "valid", "kept", "published", "segments", "features")
    pin = replace(
        bare,
        number=2,
        tables=[table],
        accounting={**dict.fromkeys(states, count), "dropped": 0, "failed": 0, "failures": {}},
        stages={curated: _place(catalog, cell)},
    )
    catalog.registry.pins.publish(cell, pin)
    return features


def _samples(count: int) -> Iterator[pa.Table]:
    for begin in range(0, count, 50_000):
        numbers = range(begin, min(begin + 50_000, count))
        rows = [
            {
                **{"sample_id": f"{i:032x}", "key": f"{i}.txt", "source_uri": f"/x/{i}.txt", "source": "x"},
                **{"entity_id": f"{i:032x}", "content_hash": f"{i:064x}", "mime": "text/plain", "kept": True},
                **{"rules": [], "passed": [], "split_group": str(i), "split": "train", "quality_score": 1.0},
                "label": f"label {i % 20}",
            }
            for i in numbers
        ]
        yield CURATED_SAMPLES.rows(rows)


@contextmanager
def _service(root: str) -> Iterator[str]:
    """Yield the address of a service over a store, in a process of its own."""
    address = f"http://127.0.0.1:{(port := free_port())}"
    command = [sys.executable, "-m", "mm_assets.cli.main", "serve", "--port", str(port)]
    process = subprocess.Popen(command, env={**os.environ, "MM_STORE": root}, stdout=subprocess.DEVNULL)
    try:
        until = time.monotonic() + 120
        while not _is_ready(address):
            assert process.poll() is None, "the service has ended"
            assert time.monotonic() < until, "the service does not start"
            time.sleep(0.2)
        yield address
    finally:
        process.terminate()
        process.wait(60)


def _is_ready(address: str) -> bool:
    try:
        return httpx.get(f"{address}/readyz").status_code == 200
    except httpx.HTTPError:
        return False


if __name__ == "__main__":
    main()
