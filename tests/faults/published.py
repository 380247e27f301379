"""The contents of a store, in a form that compares a disturbed run with an undisturbed one."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from mm_assets.operations.status import cell_status
from mm_embed_kernels.contracts.pipeline import STAGES
from mm_resources.catalog import Catalog
from mm_resources.cell import Cell
from mm_resources.storage import lance_datasets

# Columns that differ between any two runs: time, place, run and costs of a row.
VOLATILE = {
    "run_id", "created_at", "verified_at", "published_at", "at", "seconds", "path", "offset", "lance_version", "tag", "pin",
    "computed", "reused", "cpu_seconds", "gpu_seconds", "bytes_read", "bytes_written", "peak_bytes", "price",
}  # fmt: skip


@dataclass
class Published:
    """The published state of a cell; all but `vectors` must be equal bit by bit."""

    facts: dict[str, Any]
    vectors: dict[str, np.ndarray[Any, Any]]

    def assert_like(self, other: Published, tolerance: float = 1e-5) -> None:
        assert self.facts.keys() == other.facts.keys()
        for name, value in self.facts.items():
            assert value == other.facts[name], name
        assert self.vectors.keys() == other.vectors.keys()
        for name, vectors in self.vectors.items():
            np.testing.assert_allclose(vectors, other.vectors[name], atol=tolerance, err_msg=name)


def published(root: str, cell: Cell) -> Published:
    """Read a cell's tables, verdicts, failures, accounting, pin and feature rows."""
    catalog = Catalog.open(root)
    tables, pin = catalog.tables, catalog.registry.pins.get(cell)
    facts: dict[str, Any] = {
        "status": {
            name: value for name, value in cell_status(catalog, cell).items() if name != "published_at"
        }
    }
    facts["pins"] = catalog.store.names(f"registry/pins/{cell.path}")
    for asset in STAGES:
        meta = tables.meta(asset, cell)
        assert meta is not None, asset
        facts[f"meta of {asset}"] = (
            meta.data_version,
            meta.rows,
            meta.row_count,
            meta.failed,
            meta.retryable,
            meta.blocked,
        )
        facts[f"rows of {asset}"] = _rows(tables.read(asset, cell).read_all())
    facts["failures"] = _rows(catalog.failures.read(cell).read_all())
    assert pin is not None
    facts["pin"] = {name: getattr(pin, name) for name in ("number", "data_version", "accounting", "override")}
    vectors = {}
    for pinned in pin.tables:
        table = catalog.features.dataset(pinned.table, pinned.lance_version).to_table().sort_by("feature_id")
        facts[f"{pinned.table}, pinned"] = (
            pinned.rows,
            pinned.digest,
            pinned.index,
            pinned.recall,
            pinned.fingerprint,
        )
        facts[f"{pinned.table}, rows"] = _rows(table.drop(["vector"]))
        vectors[pinned.table] = (
            table["vector"].combine_chunks().flatten().to_numpy().reshape(table.num_rows, -1)
        )
    return Published(facts, vectors)


def _rows(table: pa.Table) -> list[dict[str, Any]]:
    """Return the rows, sorted, without the volatile columns."""
    kept = [name for name in table.column_names if name not in VOLATILE]
    return sorted(table.select(kept).to_pylist(), key=repr)


def cached(root: str) -> dict[str, list[str]]:
    """Return the sorted keys of all rows that each cache physically holds, by ``kernel/fingerprint``."""
    found = {}
    for path in sorted(Path(root, "cache").glob("*/*.lance")):
        dataset = lance_datasets.open_dataset(str(path))
        assert dataset is not None
        found[f"{path.parent.name}/{path.stem}"] = sorted(
            dataset.to_table(columns=["key"])["key"].to_pylist()
        )
    return found


def stored(root: str) -> list[str]:
    """Return the sorted hashes of all rows of the blob index."""
    dataset = lance_datasets.open_dataset(f"{root}/blobs/index.lance")
    assert dataset is not None
    return sorted(dataset.to_table(columns=["content_hash"])["content_hash"].to_pylist())


def computed(root: str) -> Counter[str]:
    """Count the rows that each kernel computed over all runs of a store, by the ledger."""
    counts: Counter[str] = Counter()
    for row in Catalog.open(root).ledger.read().read_all().to_pylist():
        if row["kernel"]:
            counts[row["kernel"]] += row["computed"]
    return counts
