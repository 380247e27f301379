"""Keep a service (`mm serve`) busy while its cell is published again: no error, no mixture, flat memory.

Two contents of a cell take turns: every label of one begins with ``even``, of the other with ``odd``, as its
pin's number is. Clients search, and read pages to their end; an answer with labels of both is a mixture.

Run: .venv/bin/python -m benchmarks.serve_soak --minutes 30
"""

from __future__ import annotations

import argparse
import random
import threading
import time
from collections import Counter
from dataclasses import replace
from typing import Any

import httpx
import numpy as np
import psutil
import pyarrow as pa

from benchmarks.search import _published_table
from benchmarks.serve import _ASKED, _publish_samples, _service
from mm_embed_kernels.contracts import CURATED_SAMPLES, feature_contract
from mm_resources.registry.pins import Pin
from mm_resources.retrieval.feature_store import FeatureStore
from mm_resources.storage.process import configure_process

_NAMES = ("even", "odd")


def main() -> None:
    """Run the soak, print what was found, and end with 1 where something was."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--rows", type=int, default=4_000)
    parser.add_argument("--every", type=float, default=5.0, help="seconds between two publishes")
    arguments = parser.parse_args()
    configure_process()
    with (
        _published_table(arguments.rows, 384) as (features, bare),
        _service(_publish_samples(features, bare, arguments.rows).catalog.store.root) as address,
    ):
        _run(features, bare, address, arguments)


def _run(features: FeatureStore, bare: Pin, address: str, arguments: argparse.Namespace) -> None:
    contents = _contents(features, bare)
    _publish(features, contents, 4)
    end, found = threading.Event(), Counter[str]()
    vectors = np.random.default_rng(0).normal(size=(64, 384)).tolist()
    clients = [
        threading.Thread(target=_ask, args=(address, number, vectors, end, found))
        for number in range(arguments.clients)
    ]
    for client in clients:
        client.start()
    (process,) = [each for each in psutil.Process().children() if "serve" in " ".join(each.cmdline()[-4:])]
    began, number, memory = time.monotonic(), 5, list[tuple[float, float]]()
    while (passed := time.monotonic() - began) < 60 * arguments.minutes:
        _publish(features, contents, number)
        number += 1
        memory.append((passed / 60, _megabytes(process)))
        time.sleep(arguments.every)
    end.set()
    for client in clients:
        client.join()
    after = [size for minute, size in memory if minute >= min(5, arguments.minutes / 2)]
    print(
        f"{arguments.minutes:g} minutes, {arguments.clients} clients, {number - 4} publishes: {dict(found)}"
    )
    print(f"memory after the first minutes: {after[0]:,.0f} to {after[-1]:,.0f} MiB, most {max(after):,.0f}")
    if any(name not in ("searches", "pages", "walks", "busy") for name in found):
        raise SystemExit(1)


def _megabytes(process: psutil.Process) -> float:
    every = [process, *process.children(recursive=True)]
    return sum(each.memory_info().rss for each in every if each.is_running()) / 2**20


def _contents(features: FeatureStore, bare: Pin) -> list[Pin]:
    """Return two pins whose tables have the same rows with other labels."""
    catalog, made = features.catalog, []
    first = catalog.registry.pins.get(bare.cell)
    assert first is not None
    curated = "curated_samples"
    rows = catalog.tables.dataset(curated, bare.cell).to_table()
    vectors = catalog.features.dataset(first.primary.table, first.primary.lance_version).to_table()
    for name in _NAMES:
        meta = catalog.tables.meta(curated, bare.cell)
        assert meta is not None
        number = catalog.tables.fence(curated, bare.cell)
        written = catalog.tables.write(curated, bare.cell, CURATED_SAMPLES, [_labelled(rows, name)])
        catalog.tables.commit(curated, bare.cell, written, meta, number)
        table = f"bench__soak__{name}"
        candidate = catalog.features.write_candidate(
            table, feature_contract(384, []), iter(_labelled(vectors, name).to_batches())
        )
        catalog.features.tag(table, candidate.lance_version, "pin-1")
        pinned = replace(
            first.primary, table=table, lance_version=candidate.lance_version, digest=candidate.digest
        )
        state = catalog.tables.state(curated, bare.cell)
        assert state is not None
        made.append(replace(first, tables=[pinned], stages={curated: state.place}))
    return made


def _labelled(rows: pa.Table, name: str) -> pa.Table:
    labels = pa.array([f"{name} {i % 20}" for i in range(rows.num_rows)])
    return rows.set_column(rows.schema.get_field_index("label"), rows.schema.field("label"), labels)


def _publish(features: FeatureStore, contents: list[Pin], number: int) -> None:
    pin = replace(contents[number % 2], number=number)
    features.catalog.registry.pins.publish(pin.cell, pin)


def _ask(address: str, number: int, vectors: Any, end: threading.Event, found: Counter[str]) -> None:
    dice = random.Random(number)
    with httpx.Client(base_url=address, timeout=120) as client:
        while not end.is_set():
            try:
                _walk(client, dice, found) if dice.random() < 0.2 else _search(client, dice, vectors, found)
            except Exception as error:  # noqa: BLE001 - whatever it is, it is a finding
                found[f"error: {type(error).__name__}: {str(error)[:200]}"] += 1


def _search(client: httpx.Client, dice: random.Random, vectors: Any, found: Counter[str]) -> None:
    query = dice.choice(vectors) if dice.random() < 0.8 else f"a heron {dice.random()}"
    answer = client.post("/v1/search", json={**_ASKED, "query": query, "k": 50})
    if _is_answered(answer, found):
        given = answer.json()
        _compare(given["pins"][0]["pin"], given["hits"], found)
        found["searches"] += 1


def _walk(client: httpx.Client, dice: random.Random, found: Counter[str]) -> None:
    """Read pages of samples to their end, all of one pin; or a page of the explorer."""
    if dice.random() < 0.3:
        view = dice.choice(["/", "/samples?version=bench@v1&modality=text", "/metrics"])
        found["pages"] += _is_answered(client.get(view), found)
        return
    asked = {"dataset_version": "bench@v1", "modality": "text", "limit": 500}
    cursor, seen, pins, total = None, 0, set[int](), 0
    while True:
        answer = client.get("/v1/samples", params={**asked, **({"cursor": cursor} if cursor else {})})
        if not _is_answered(answer, found):
            return
        page = answer.json()
        pins.add(page["pin"]["pin"])
        _compare(page["pin"]["pin"], page["rows"], found)
        seen, total, cursor = seen + len(page["rows"]), page["total"], page["cursor"]
        if cursor is None:
            break
    found["walks"] += 1
    if len(pins) != 1 or seen != total:
        found[f"a walk read {seen} of {total} rows of {len(pins)} pins"] += 1


def _is_answered(answer: httpx.Response, found: Counter[str]) -> bool:
    if answer.status_code == 429:
        found["busy"] += 1
    elif answer.status_code != 200:
        found[f"status {answer.status_code}: {answer.text[:200]}"] += 1
    return answer.status_code == 200


def _compare(pin: int, rows: list[dict[str, Any]], found: Counter[str]) -> None:
    names = {row["label"].split()[0] for row in rows}
    if names != {_NAMES[pin % 2]}:
        found[f"mixture: pin {pin} answered {sorted(names)}"] += 1


if __name__ == "__main__":
    main()
