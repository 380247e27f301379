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
from typing import Any

import httpx
import numpy as np

from benchmarks import ratios
from benchmarks.ratios import Row
from benchmarks.search import _WHERE, _published_table
from mm_embed_kernels.contracts.features import vectors_of
from mm_resources.retrieval.feature_store import FeatureStore
from mm_resources.storage.process import configure_process
from tests.processes import free_port

_ASKED = {"dataset_version": "bench@v1", "modality": "text"}


def main() -> None:
    """Print the rows for a table of a given size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--queries", type=int, default=50, help="queries of each client")
    arguments = parser.parse_args()
    for row in _rows(arguments.rows, arguments.clients, arguments.queries, 1):
        print(f"{row.name}: {row.ratio:.2f} ({row.low:.2f} to {row.high:.2f}), goal {row.sense} {row.goal}")


def rows(share: float) -> Iterator[Row]:
    """Yield p50 and p99 of filtered searches, and the time of the first page."""
    yield from _rows(max(2_000, round(200_000 * share)), 8, 100, ratios.PAIRS)


def _rows(count: int, clients: int, queries: int, rounds: int) -> Iterator[Row]:
    configure_process()
    name = f"service, {count:,} x 384, {clients} clients"
    with _published_table(count, 384) as (features, pin), _service(features.catalog.store.root) as address:
        table = pin.primary
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
        yield ratios.row(
            f"first page, {count:,} rows, over 50 ms", _first_page(address, rounds), goal=1.0, sense="<="
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


def _first_page(address: str, rounds: int) -> list[float]:
    """Return the time of the first page of the explorer, warm, as multiples of 50 ms."""
    with httpx.Client(base_url=address, timeout=60) as client:
        client.get("/").raise_for_status()
        shares = []
        for _ in range(rounds):
            began = time.perf_counter()
            client.get("/").raise_for_status()
            shares.append((time.perf_counter() - began) / 0.05)
        return shares


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
