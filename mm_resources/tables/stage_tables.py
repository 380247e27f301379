"""Stage tables: one Lance dataset per cell and asset, replaced atomically and fenced.

The metadata of a stage (data version, gate verdict, counts) travels in the schema metadata of the same
commit: a reader sees old rows with the old verdict or new rows with the new one, never a mixture.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from mm_embed_kernels.contracts import Contract
from mm_embed_kernels.errors import UserError
from mm_embed_kernels.sql import RowDigest
from mm_resources.cell import Cell
from mm_resources.storage import dataset_versions, lance_datasets
from mm_resources.storage.store import Store
from mm_resources.storage.table_files import require_intact

if TYPE_CHECKING:
    import lance

# Schema metadata of a stage's table: its `StageMeta`.
META = b"mm.stage"


class NotMaterialized(UserError):
    """A stage of a cell that was never materialized."""

    def __init__(self, asset: str, cell: Cell) -> None:
        super().__init__(
            f"{asset} of {cell.partition_key} is not materialized; "
            f"run `mm backfill {cell.dataset_version} --modality {cell.modality}`"
        )
        self.asset, self.cell = asset, cell

    def __reduce__(self) -> tuple[Any, ...]:
        return NotMaterialized, (self.asset, self.cell)


@dataclass(frozen=True)
class StageMeta:
    """Metadata of a stage's table.

    Attributes:
        data_version: content-derived; equal content has an equal version.
        inputs: digest of all inputs (upstream data versions, code, configuration); equal inputs need no new
            work.
        rows: rows of the table.
        row_count: rows that the asset stands for: its table's, unless that is a record of another table.
        failed: failure events that the stage recorded.
        retryable: how many of them are marked retryable.
        failures: Lance version of the failure table that holds them; 0 when there are none.
        environment: digest of what the failures depend on.
        blocked: why later stages may not run, or "" (the stored verdict of the gate).
        work: kernel -> rows that the stage requested from it.
        run_id: Dagster run that wrote it.
        at: ISO time of the write.
        summary: figures for people.
        figures: numbers by their stable names, besides those of `summary` and `checks`.
        checks: outcomes of the stage's checks, replayed while nothing changes.
        plots: names of the pictures that were drawn of it.
        samples: samples that left the stage; None where it was written before they were counted.
        counts_runs: whether the cache counts the runs that see a failure of the machine's; False where it was
            written before, when one run made such a failure permanent.
    """

    data_version: str
    inputs: str
    rows: int
    row_count: int
    failed: int
    retryable: int
    failures: int
    environment: str
    blocked: str
    work: dict[str, int]
    run_id: str
    at: str
    summary: dict[str, Any] = field(default_factory=dict)
    checks: list[dict[str, Any]] = field(default_factory=list)
    plots: list[str] = field(default_factory=list)
    samples: int | None = None
    counts_runs: bool = False
    figures: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class WrittenRows:
    """The rows of a stage that are written and not committed.

    Attributes:
        rows: how many there are.
        digest: over the columns that the contract digests, whatever their order.
    """

    fragments: list[lance.FragmentMetadata]
    rows: int
    digest: str


def stage_path(asset: str, cell: Cell) -> str:
    """Return the path of a stage's table below the store's root."""
    return f"stages/{asset}/{cell.path}.lance"


class StageTables:
    """The stage tables of a store."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def uri(self, asset: str, cell: Cell) -> str:
        return self.store.uri(stage_path(asset, cell))

    def meta(self, asset: str, cell: Cell, version: int | None = None) -> StageMeta | None:
        """Metadata of the current table, or of an earlier Lance version; None when it was never published."""
        found = self.state(asset, cell, version)
        return found[0] if found else None

    def state(self, asset: str, cell: Cell, version: int | None = None) -> tuple[StageMeta, int] | None:
        """Metadata and Lance version of the current table or an earlier one; None when never published."""
        dataset = lance_datasets.open_dataset(self.uri(asset, cell), version)
        raw = None if dataset is None else (dataset.schema.metadata or {}).get(META)
        return (StageMeta(**json.loads(raw)), int(dataset.version)) if dataset is not None and raw else None

    def save_plot(self, asset: str, cell: Cell, run_id: str, name: str, png: bytes) -> None:
        """Store a plot of a stage as a run drew it."""
        self.store.write(self._plot(asset, cell, run_id, name), png)

    def plot(self, asset: str, cell: Cell, run_id: str, name: str) -> bytes:
        return self.store.read(self._plot(asset, cell, run_id, name))

    @staticmethod
    def _plot(asset: str, cell: Cell, run_id: str, name: str) -> str:
        return f"stages/{asset}/{cell.path}.plots/{run_id}-{name}.png"

    def fence(self, asset: str, cell: Cell, contract: Contract) -> int:
        return lance_datasets.fence(self.uri(asset, cell), contract.bare)

    def tag(self, asset: str, cell: Cell, version: int, tag: str) -> None:
        """Tag a version of a stage's table, so that upkeep keeps it once it is superseded and old."""
        dataset_versions.tag(self.uri(asset, cell), version, tag)

    def read(
        self,
        asset: str,
        cell: Cell,
        columns: list[str] | None = None,
        where: str | None = None,
        version: int | None = None,
        limit: int | None = None,
    ) -> pa.RecordBatchReader:
        """Stream the current table, or an earlier Lance version of it.

        Raises:
            NotMaterialized: when the asset was never materialized for the cell.
        """
        return self.rows(self.dataset(asset, cell, version), columns, where, limit)

    def read_or_empty(
        self,
        asset: str,
        cell: Cell,
        schema: pa.Schema,
        where: str | None = None,
        version: int | None = None,
    ) -> pa.RecordBatchReader:
        """Stream the columns of `schema`, as `read` does; no rows where the asset was never materialized."""
        try:
            return self.read(asset, cell, schema.names, where, version)
        except NotMaterialized:
            return schema.empty_table().to_reader()

    def dataset(self, asset: str, cell: Cell, version: int | None = None) -> lance.LanceDataset:
        """Open the current table as it is now, or an earlier version of it, for any number of reads.

        Raises:
            NotMaterialized: when the asset was never materialized for the cell.
        """
        dataset = lance_datasets.open_dataset(self.uri(asset, cell), version)
        if dataset is None or META not in (dataset.schema.metadata or {}):
            raise NotMaterialized(asset, cell)
        return dataset

    def require_intact(self, asset: str, cell: Cell, dataset: lance.LanceDataset) -> None:
        """Check that the files of a version match their hashes.

        Raises:
            DamagedFiles: in one line, with the command that computes the rows again.
        """
        require_intact(dataset, f"stages/{asset}/{cell.path}")

    def mark_stale(self, asset: str, cell: Cell) -> None:
        """Empty the inputs in the metadata of a stage's table, so that the next run computes it again."""
        dataset, found = lance_datasets.open_dataset(self.uri(asset, cell)), self.state(asset, cell)
        if dataset is None or found is None:
            return
        schema = dataset.schema.with_metadata({META: json.dumps(asdict(replace(found[0], inputs="")))})
        fragments = [fragment.metadata for fragment in dataset.get_fragments()]
        message = f"{asset} {cell.partition_key} is out of date"
        lance_datasets.commit(self.uri(asset, cell), schema, fragments, int(dataset.version), message)

    @staticmethod
    def rows(
        dataset: lance.LanceDataset,
        columns: list[str] | None = None,
        where: str | None = None,
        limit: int | None = None,
    ) -> pa.RecordBatchReader:
        """Stream a version that `dataset` has opened."""
        return lance_datasets.reader(dataset, dataset.schema.remove_metadata(), columns, where, limit)

    def write(self, asset: str, cell: Cell, contract: Contract, batches: Iterable[pa.Table]) -> WrittenRows:
        """Cast, digest and write the rows of a stage, which no reader sees before `commit`."""
        digest = RowDigest(contract.digest, contract.stand_ins)

        def checked_tables() -> Iterator[pa.Table]:
            for table in batches:
                cast = contract.cast(table)
                digest.update(cast)
                yield cast

        fragments = lance_datasets.write_fragments(
            self.uri(asset, cell),
            contract.bare,
            lance_datasets.batches_of(checked_tables()),
            mode="overwrite",
        )
        return WrittenRows(fragments, digest.rows, digest.hexdigest())

    def commit(
        self,
        asset: str,
        cell: Cell,
        contract: Contract,
        written: WrittenRows,
        meta: StageMeta,
        read_version: int,
    ) -> None:
        """Publish written rows and the stage's metadata in one commit.

        Raises:
            Fenced: when another run published since `read_version`.
        """
        schema = contract.bare.with_metadata({META: json.dumps(asdict(meta))})
        message = f"{asset} {cell.partition_key} run {meta.run_id}"
        lance_datasets.commit(self.uri(asset, cell), schema, written.fragments, read_version, message)
