"""Rewriting of tables without the rows of forgotten samples, in each version that a tag keeps.

Stage and feature tables, whose versions share files, are written anew instead (`stage_replays`,
`lineage_replays`).
"""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa

from mm_resources.blobs.receipts import Receipt
from mm_resources.catalog import Catalog
from mm_resources.maintenance.forgetting_scope import row_condition
from mm_resources.storage import dataset_versions, lance_datasets

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
        if any(self._is_affected(name, version) for version in tags):
            self._record(name, 0)
            for version in sorted(tags, key=lambda each: (each == current, each)):
                removed, written = self._rewrite_version(name, version)
                if name.startswith("failures/"):
                    # Before the tags move: the refs that name the old version follow this record.
                    old = f"{name.removesuffix('.lance')}@{version}"
                    self.receipt.moved[old] = {"table": name, "lance_version": written}
                    self.receipts.write(self.receipt)
                for tag in tags[version]:
                    dataset_versions.tag(uri, written, tag)
                self._record(name, removed if version == current else 0)
        dataset.tags.delete(_BEFORE)

    def _record(self, name: str, removed: int) -> None:
        """Add removed rows to the receipt; 0 before the table changes, for readers of old versions."""
        table = name.removesuffix(".lance")
        self.receipt.rows[table] = self.receipt.rows.get(table, 0) + removed
        self.receipts.write(self.receipt)

    def _is_affected(self, name: str, version: int) -> bool:
        """Return whether a version has rows to remove."""
        dataset = lance_datasets.open_dataset(self.store.uri(name), version)
        assert dataset is not None
        condition = row_condition(self.receipt, name, dataset.schema.names)
        return bool(condition and dataset.count_rows(condition))

    def _rewrite_version(self, name: str, version: int) -> tuple[int, int]:
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
            dataset.schema,
            fragments,
            int(latest.version),
            f"forget {self.receipt.number}",
        )
        return int(dataset.count_rows()) - left, written
