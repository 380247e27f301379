"""Measure what many versions cost: registry, pins, search over all, garbage collection, the sensor `sources`.

    python -m benchmarks.many_versions [--versions 50 500 1000] [--store s3] [--folder /tmp]

Each store has five versions to a dataset, each with a published cell of texts of its own. "First" is a
process that has read nothing yet, "again" the same one once more. Requests are those of fsspec: of a folder
the reads and listings, of S3 the requests; Lance's own are not counted. The ratio is that of the CPU seconds
of the largest store to those of the smallest one; in brackets, that of the numbers of versions.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks.loader import blocks
from mm_embed_kernels.contracts import CONTENT_BLOBS, RAW_ASSETS, feature_contract
from mm_embed_kernels.spec.dataset_spec import parse_spec
from mm_resources.catalog import Catalog
from mm_resources.cell import Cell
from mm_resources.maintenance.garbage_collection import collect
from mm_resources.registry import pins, registrations
from mm_resources.registry.pins import Pin, PinnedTable
from mm_resources.retrieval.feature_store import FeatureStore
from mm_resources.storage import record_folder
from mm_resources.storage.process import configure_process
from mm_resources.tables.stage_refs import StageMeta
from tests.request_counts import count_requests
from tests.s3 import BUCKET, S3

ROWS, DIMENSION, EACH = 200, 384, 5
_LINE = "{:36} {:>10} {:>10} {:>10} {:>16} {:>20}"
Work = Callable[[Catalog], object]


def main() -> None:
    """Print the CPU seconds and requests of each work, for each number of versions."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--versions", type=int, nargs=3, default=[50, 500, 1_000])
    parser.add_argument("--store", choices=("local", "s3"), default="local")
    parser.add_argument("--folder", type=Path, default=None)
    arguments = parser.parse_args()
    configure_process()
    with tempfile.TemporaryDirectory(dir=arguments.folder, prefix="mm-versions-") as name:
        folder = Path(name)
        with _roots(folder, arguments.store) as root:
            figures = []
            for versions in arguments.versions:
                write_store(folder / "s3" / BUCKET / str(versions), versions)
                figures.append(measure(root(versions)))
        few, _, many = arguments.versions
        named = [f"{versions:,}" for versions in arguments.versions]
        print(_LINE.format("CPU seconds", *named, f"ratio ({many / few:.0f})", "requests"))
        for work in figures[0]:
            seconds, requests = zip(*(figure[work] for figure in figures), strict=True)
            ratio = seconds[-1] / max(seconds[0], 1e-4)
            shown = [f"{each:.3f}" for each in seconds]
            print(_LINE.format(work, *shown, f"{ratio:.1f}", " / ".join(map(str, requests))))


@contextmanager
def _roots(folder: Path, kind: str) -> Iterator[Callable[[int], str]]:
    """Yield the root of the store of a number of versions; the S3 server keeps its objects as files."""
    server = S3(folder / "s3")
    if kind == "local":
        yield lambda versions: str(server.folder / BUCKET / str(versions))
        return
    server.start()
    os.environ.update(server.environment())
    try:
        yield lambda versions: f"s3://{BUCKET}/{versions}"
    finally:
        server.kill()


def write_store(root: Path, versions: int) -> None:
    """Write a store: one version in full, the others with links to its tables."""
    catalog = Catalog.open(root)
    first = _cell(0)
    _register(catalog, first)
    pin = _publish(catalog, first)
    tables = [name for part in ("stages", "features") for name in catalog.store.tables(part)]
    for number in range(1, versions):
        cell = _cell(number)
        _register(catalog, cell)
        for name in tables:
            copy = name.replace(first.path, cell.path).replace(_table(first), _table(cell))
            shutil.copytree(root / name, root / copy, copy_function=os.link)
        own = replace(pin.primary, table=_table(cell))
        catalog.registry.pins.publish(
            cell, replace(pin, dataset=cell.dataset, version=cell.version, tables=[own])
        )


def measure(root: str) -> dict[str, tuple[float, int]]:
    """Return the CPU seconds and the requests of each work, by its name."""
    vector = np.ones(DIMENSION, np.float32)
    search = partial(_search, vector=vector)
    works: dict[str, Work] = {
        "versions (mm datasets names)": lambda catalog: catalog.registry.datasets(),
        "newest of each dataset": lambda catalog: catalog.registry.newest_versions(),
        "cells": lambda catalog: list(catalog.registry.all_cells()),
        "pins (nightly, mm datasets)": lambda catalog: list(catalog.registry.published()),
        "pin of one cell": lambda catalog: catalog.registry.published_pin("d1@v1", "text"),
        "mm status of one version": _status,
        "sensor sources, one in ten watched": _tick,
        "search of one version": partial(search, dataset_version="d1@v1"),
        "search over all": search,
        "gc, dry run": lambda catalog: collect(catalog, timedelta(0), dry_run=True),
    }
    # The first process ever writes the indexes of the registry.
    _forget_memory()
    figures = {"pins, no index yet": _measure(Catalog.open(root), lambda c: list(c.registry.published()))}
    for name, work in works.items():
        _forget_memory()
        catalog = Catalog.open(root)
        figures[f"{name}, first"] = _measure(catalog, work)
        figures[f"{name}, again"] = _measure(catalog, work)
    return figures


def _measure(catalog: Catalog, work: Work) -> tuple[float, int]:
    with count_requests(catalog.store) as counts:
        began = time.process_time()
        work(catalog)
        seconds = time.process_time() - began
    return seconds, sum(counts.values())


def _forget_memory() -> None:
    """Forget what a process has in memory of the registry."""
    for cached in (record_folder._folder, registrations._parse, pins._parse):
        cached.cache_clear()


_stores: dict[int, FeatureStore] = {}


def _search(catalog: Catalog, vector: Any, dataset_version: str | None = None) -> object:
    # Of one catalog, so that what it has opened stays open.
    features = _stores.setdefault(id(catalog), FeatureStore(catalog))
    found = features.search(vector, dataset_version=dataset_version, modality="text", k=5)
    assert found.num_rows == 5
    return found


def _status(catalog: Catalog) -> object:
    from mm_assets.operations.status import dataset_status

    return dataset_status(catalog, "d1@v1")


def _tick(catalog: Catalog) -> object:
    import dagster as dg

    from mm_assets.automation.source_sensor import sources
    from mm_resources.resources import CatalogResource, StoreResource

    with dg.DagsterInstance.ephemeral() as instance:
        resource = CatalogResource(store=StoreResource(root=catalog.store.root))
        with dg.build_sensor_context(instance=instance, resources={"mm_catalog": resource}) as context:
            return sources(context)


def _cell(number: int) -> Cell:
    return Cell(f"d{number // EACH}", f"v{number % EACH}", "text")


def _table(cell: Cell) -> str:
    return f"{cell.dataset}.{cell.version}.text.random"


def _register(catalog: Catalog, cell: Cell) -> None:
    watched = int(cell.dataset[1:]) % 10 == 0
    spec = {
        "name": cell.dataset,
        "version": cell.version,
        "sources": [{"name": "texts", "modality": "text", "uri": f"/data/{cell.dataset}/*.txt"}],
        **({"watch": {"sources": "propose"}} if watched else {}),
    }
    catalog.registry.register(parse_spec(json.dumps(spec), "benchmark"))


def _publish(catalog: Catalog, cell: Cell) -> Pin:
    stages = {}
    hashes = [f"{row:064x}" for row in range(ROWS)]
    for asset, contract, rows in (
        ("raw_assets", RAW_ASSETS, {"sample_id": [each[32:] for each in hashes], "content_hash": hashes}),
        ("content_blobs", CONTENT_BLOBS, {"content_hash": hashes}),
    ):
        number = catalog.tables.fence(asset, cell)
        written = catalog.tables.write(asset, cell, contract, [_fill_columns(contract.bare, rows)])
        meta = StageMeta("d", "i", ROWS, ROWS, 0, 0, 0, "e", "", {}, "run", "now")
        catalog.tables.commit(asset, cell, written, meta, number)
        state = catalog.tables.state(asset, cell)
        assert state is not None
        stages[asset] = state.place
    name = _table(cell)
    candidate = catalog.features.write_candidate(
        name, feature_contract(DIMENSION, []), blocks(ROWS, DIMENSION)
    )
    table = PinnedTable(
        embedder="random", settings={}, fingerprint="0", weights_hash="0", preprocessing={}, primary=True,
        table=name, lance_version=candidate.lance_version, tag="pin-1", rows=candidate.rows,
        dimension=DIMENSION, space="random", index=candidate.index, digest=candidate.digest, recall=None,
    )  # fmt: skip
    catalog.features.tag(name, candidate.lance_version, table.tag)
    at = datetime.now(UTC).isoformat()
    counts = {"features": ROWS}
    pin = Pin(1, cell.dataset, cell.version, cell.modality, "run", at, "data", [table], counts, stages)
    catalog.registry.pins.publish(cell, pin)
    return pin


def _fill_columns(schema: pa.Schema, columns: dict[str, list[str]]) -> pa.Table:
    """Return rows of a schema with some columns, and a value of its type in each other one."""
    values: dict[str, Any] = {"string": "x", "int64": 1, "bool": False, "double": 1.0}
    rows = {
        field.name: pa.array(
            columns.get(field.name, [values.get(str(field.type), datetime.now(UTC))] * ROWS)
            if field.name in columns or not field.nullable
            else [None] * ROWS,
            field.type,
        )
        for field in schema
    }
    return pa.table(rows, schema=schema)


if __name__ == "__main__":
    main()
