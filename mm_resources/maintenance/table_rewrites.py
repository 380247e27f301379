"""Rewriting of tables without the rows of forgotten samples, in each version that a tag keeps.

Feature tables, whose versions share files, are written anew instead (`lineage_replays`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from mm_resources.blobs.receipts import Receipt
from mm_resources.catalog import Catalog
from mm_resources.maintenance.forgetting_scope import row_condition
from mm_resources.maintenance.upkeep import CURRENT
from mm_resources.storage import dataset_versions, lance_datasets
from mm_resources.tables.stage_tables import META

if TYPE_CHECKING:
    import lance

# Tag of the version that was current before a table is rewritten.
_BEFORE = "before-forgetting"


class TableRewriter:
    """Rewrites the tables of a store for one receipt; repeating a rewrite that crashed completes it."""

    def __init__(self, catalog: Catalog, receipt: Receipt) -> None:
        self.store = catalog.store
        self.receipt, self.receipts = receipt, catalog.receipts

    def rewrite(self, name: str) -> None:
        """Write a table without the receipt's rows, for each tagged version, the current one last."""
        uri = self.store.uri(name)
        dataset = lance_datasets.open_dataset(uri)
        if dataset is None:
            return
        if _BEFORE not in dataset.tags.list():
            dataset.tags.create(_BEFORE, int(dataset.version))
        tags: dict[int, list[str]] = {}
        for tag, content in dataset.tags.list().items():
            tags.setdefault(int(content["version"]), []).append(tag)
        current = next(version for version, names in tags.items() if _BEFORE in names)
        if any(self._is_affected(name, version, tags[version]) for version in tags):
            self._record(name, 0)
            for version in sorted(tags, key=lambda each: (each == current, each)):
                removed, written = self._rewrite_version(name, version, tags[version])
                for tag in tags[version]:
                    dataset_versions.tag(uri, written, tag)
                self._record(name, removed if version == current else 0)
        dataset.tags.delete(_BEFORE)

    def _record(self, name: str, removed: int) -> None:
        """Add removed rows to the receipt; 0 before the table changes, for readers of old versions."""
        table = name.removesuffix(".lance")
        self.receipt.rows[table] = self.receipt.rows.get(table, 0) + removed
        self.receipts.write(self.receipt)

    def _is_affected(self, name: str, version: int, tags: list[str]) -> bool:
        """Return whether a version has rows to remove, or its stage names failures that were rewritten."""
        dataset = lance_datasets.open_dataset(self.store.uri(name), version)
        assert dataset is not None
        condition = row_condition(self.receipt, name, dataset.schema.names)
        if condition and dataset.count_rows(condition):
            return True
        meta = _stage_meta(name, dataset)
        return meta is not None and self._failures_version(name, meta, tags) != meta["failures"]

    def _rewrite_version(self, name: str, version: int, tags: list[str]) -> tuple[int, int]:
        """Write a version again on top of its table; return the removed rows and the new version."""
        uri = self.store.uri(name)
        dataset, latest = lance_datasets.open_dataset(uri, version), lance_datasets.open_dataset(uri)
        assert dataset is not None
        assert latest is not None
        condition = row_condition(self.receipt, name, dataset.schema.names)
        where = f"NOT coalesce({condition}, false)" if condition else None
        rows = lance_datasets.reader(dataset, dataset.schema, where=where)
        left = 0

        def counted_batches() -> Iterator[pa.Table]:
            nonlocal left
            for batch in rows:
                left += batch.num_rows
                yield pa.Table.from_batches([batch])

        fragments = lance_datasets.write_fragments(
            uri, dataset.schema, lance_datasets.batches_of(counted_batches())
        )
        written = lance_datasets.commit(
            uri,
            self._schema(name, dataset, tags, left),
            fragments,
            int(latest.version),
            f"forget {self.receipt.number}",
        )
        return int(dataset.count_rows()) - left, written

    def _schema(self, name: str, dataset: lance.LanceDataset, tags: list[str], rows: int) -> pa.Schema:
        """Return a version's schema; of a stage, with metadata that match the rewritten rows and failures.

        The metadata's ``inputs`` are emptied, so that the stage counts as out of date.
        """
        meta = _stage_meta(name, dataset)
        if meta is None:
            return dataset.schema
        version = self._failures_version(name, meta, tags)
        failures = lance_datasets.open_dataset(self._failures_uri(name), version) if version else None
        counts = (
            {"failed": failures.count_rows(), "retryable": failures.count_rows("retryable")}
            if failures is not None
            else {}
        )
        row_count = rows if meta["row_count"] == meta["rows"] else meta["row_count"]
        meta = {**meta, **counts, "failures": version, "inputs": "", "rows": rows, "row_count": row_count}
        return dataset.schema.with_metadata({META: json.dumps(meta)})

    def _failures_version(self, name: str, meta: dict[str, Any], tags: list[str]) -> int:
        """Return the rewritten version of the failures that belong to a version of a stage."""
        failures = lance_datasets.open_dataset(self._failures_uri(name)) if meta["failures"] else None
        versions = failures.tags.list() if failures is not None else {}
        # A version that is both current and pinned names the same failures by both tags.
        tag = CURRENT if _BEFORE in tags or not tags else tags[0]
        return int(versions[tag]["version"]) if tag in versions else int(meta["failures"])

    def _failures_uri(self, name: str) -> str:
        return self.store.uri(f"failures/{name.removeprefix('stages/')}")


def _stage_meta(name: str, dataset: lance.LanceDataset) -> dict[str, Any] | None:
    """Return the stored `StageMeta` of a stage's table; None for any other table."""
    raw = (dataset.schema.metadata or {}).get(META)
    if not name.startswith("stages/") or not raw:
        return None
    meta: dict[str, Any] = json.loads(raw)
    return meta
