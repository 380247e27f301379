"""Forgetting in feature tables: their pinned versions are written again, into a new table, without the rows.

The versions of a table share files, and a row that a version has lost is still in the file of its base. So no
file of the old table stays: the oldest pinned version is written whole, each later one as its difference, in
the way of any version (`mm_resources.lineages`). The receipt then names where each version has gone, the pins
move, and the old table is removed as a folder. Until then it stays as it is, so that a forgetting that was
killed is completed by the next; rows of the new table that no pin names yet are removed by that one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import pyarrow as pa

from mm_embed_kernels.contracts import Contract
from mm_embed_kernels.contracts.fields import TIME
from mm_resources.blobs.receipts import Receipt
from mm_resources.catalog import Catalog
from mm_resources.features.feature_tables import Candidate
from mm_resources.features.table_metadata import stored_metadata
from mm_resources.features.table_paths import FOLDER, table_at, table_path
from mm_resources.features.versions import MAKER, VersionWriter
from mm_resources.lineages.differences import COMPUTED_AT, Numbers, take_numbered
from mm_resources.maintenance.forgetting_scope import row_condition
from mm_resources.maintenance.held_rows import holds_rows
from mm_resources.maintenance.unnamed_tables import PinnedVersions, pinned_versions
from mm_resources.registry.pins import PinnedTable
from mm_resources.storage import lance_datasets

if TYPE_CHECKING:
    import lance


def replay_tables(catalog: Catalog, receipt: Receipt) -> None:
    """Write each feature table that holds rows of a receipt again, without them; pins still name the old."""
    pinned = pinned_versions(catalog)
    for name in list(catalog.store.tables(FOLDER)):
        table = table_at(name)
        if _is_replayed(catalog, pinned, receipt, table) or not holds_rows(catalog, receipt, name):
            continue
        # Recorded before anything changes, for readers of old manifests.
        receipt.rows.setdefault(table, 0)
        catalog.receipts.write(receipt)
        if table in pinned.pins:
            _replay(catalog, receipt, pinned, table)
            catalog.receipts.write(receipt)


def remove_replayed(catalog: Catalog, receipt: Receipt) -> None:
    """Remove the tables that hold rows of a receipt, and that no pin names any more."""
    pinned = pinned_versions(catalog)
    for name in list(catalog.store.tables(FOLDER)):
        table = table_at(name)
        if table in receipt.rows and table not in pinned.pins:
            catalog.features.remove(table)


def _is_replayed(catalog: Catalog, pinned: PinnedVersions, receipt: Receipt, table: str) -> bool:
    """Return whether all pinned versions of a table have been written again, and are there."""
    versions = pinned.versions(table)
    moved = [receipt.moved.get(f"{table}@{version}") for version in versions]
    return bool(moved) and all(
        each is not None and catalog.features.has(str(each["table"]), int(each["lance_version"]))
        for each in moved
    )


def _replay(catalog: Catalog, receipt: Receipt, pinned: PinnedVersions, table: str) -> None:
    """Write the pinned versions of a table again, oldest first, each on top of the one before it."""
    features, name = catalog.features, table_path(table)
    moved: dict[str, dict[str, object]] = {}
    before: PinnedTable | None = None
    for version, pins in pinned.versions(table).items():
        dataset = features.dataset(table, version)
        condition = row_condition(receipt, name, dataset.schema.names)
        rows = _RemainingRows(dataset, f"NOT coalesce({condition}, false)" if condition else None)
        # The row of a version is that of its maker, too, so that repaired rows replace wrong ones here again.
        writer = VersionWriter(features, compared=MAKER, metadata=stored_metadata(dataset.schema.metadata))
        contract = Contract("feature_table", dataset.schema.remove_metadata(), "feature_id", ("feature_id",))
        candidate = writer.write(
            _new_name(catalog, pinned, receipt, moved, table), contract, rows, [before] if before else []
        )
        named = [each for _, pin in pins for each in pin.tables]
        named = [each for each in named if (each.table, each.lance_version) == (table, version)]
        for each in named:
            features.tag(candidate.table, candidate.lance_version, each.tag)
        moved[f"{table}@{version}"] = asdict(candidate)
        before = _pinned_table(named[0], candidate)
        receipt.rows[table] = int(dataset.count_rows()) - candidate.rows
    receipt.moved |= moved


def _pinned_table(table: PinnedTable, candidate: Candidate) -> PinnedTable:
    return PinnedTable(**{**asdict(table), **asdict(candidate)})


def _new_name(
    catalog: Catalog,
    pinned: PinnedVersions,
    receipt: Receipt,
    moved: dict[str, dict[str, object]],
    table: str,
) -> str:
    """Return a name for a new table; what a killed forgetting has left there is removed."""
    taken = {str(each["table"]) for each in (*receipt.moved.values(), *moved.values())}
    taken |= catalog.receipts.tables()
    for number in range(2, len(pinned.pins) + len(taken) + 3):
        name = f"{table}-{number}"
        if name not in pinned.pins and name not in taken:
            catalog.features.remove(name)
            return name
    raise AssertionError("unreachable")


@dataclass(frozen=True)
class _RemainingRows:
    """The rows of a version that pass a condition."""

    dataset: lance.LanceDataset
    where: str | None

    def bare_rows(self) -> Iterator[pa.Table]:
        """Yield all rows without their vectors."""
        names = [name for name in self.dataset.schema.names if name != "vector"]
        for batch in lance_datasets.reader(self.dataset, self.dataset.schema, names, self.where):
            table = pa.Table.from_batches([batch])
            yield table.append_column(COMPUTED_AT, pa.nulls(table.num_rows, TIME))

    def rows(self, numbers: Numbers | None = None) -> Iterator[pa.Table]:
        """Yield rows with their vectors: those with the given numbers, sorted; by default all."""
        batches = lance_datasets.reader(self.dataset, self.dataset.schema, where=self.where)
        return take_numbered((pa.Table.from_batches([batch]) for batch in batches), numbers)
