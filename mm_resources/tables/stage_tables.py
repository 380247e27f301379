"""Stage tables: the rows of each stage of a cell, as a ref names them.

A table is shared by the versions of a dataset, each a Lance version of it; no reader uses its head. What is
published (data version, gate verdict, counts) is in the ref that names the rows: a reader sees old rows with
the old verdict or new rows with the new one, never a mixture.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from mm_embed_kernels.contracts import Contract
from mm_embed_kernels.errors import UserError
from mm_resources.cell import Cell
from mm_resources.storage import dataset_versions, lance_datasets
from mm_resources.storage.lance_errors import Fenced
from mm_resources.storage.layout import has_earlier_tables, upgrade_layout
from mm_resources.storage.store import Store
from mm_resources.storage.table_files import manifest_file, require_intact
from mm_resources.tables.stage_refs import StageMeta, StageRef, StageRefs, ref_tag
from mm_resources.tables.stage_writer import StageWriter, WrittenRows

if TYPE_CHECKING:
    import lance

# Schema metadata of a table of a store of before refs: its `StageMeta`.
META = b"mm.stage"
# A stage as a pin names it: its Lance version, with table and number of the ref since there are refs.
PinnedStage = Mapping[str, Any]


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


def stage_path(asset: str, cell: Cell, at: PinnedStage | None = None) -> str:
    """Return the name in the store of a stage's table: the cell's own, or the one that a pin names."""
    return str((at or {}).get("table") or f"stages/{asset}/{cell.path}.lance")


def is_own_table(name: str, asset: str, cell: Cell) -> bool:
    """Return whether a table was written whole by a cell, or took the place of such a table."""
    return re.fullmatch(re.escape(f"stages/{asset}/{cell.path}") + r"(-\d+)?\.lance", name) is not None


class StageTables:
    """The stage tables of a store."""

    def __init__(self, store: Store) -> None:
        self.store, self.refs = store, StageRefs(store)

    def uri(self, asset: str, cell: Cell) -> str:
        """Return the URI of the table that holds a stage's rows; of the cell's own before the first ref."""
        state = self.state(asset, cell)
        return self.store.uri(state.table if state else stage_path(asset, cell))

    def meta(self, asset: str, cell: Cell, at: PinnedStage | None = None) -> StageMeta | None:
        """Metadata of a stage as it is published now, or as a pin names it; None when never published."""
        found = self.state(asset, cell, at)
        return found.meta if found else None

    def state(self, asset: str, cell: Cell, at: PinnedStage | None = None) -> StageRef | None:
        """The last ref of a stage, or the one that a pin names.

        None when it was never published, or when the table that the last ref names is gone: the next run
        writes it again.
        """
        if at is None:
            return self._present(asset, cell, self.refs.last(asset, cell))
        if at.get("ref"):
            try:
                return self.refs.get(asset, cell, int(at["ref"]))
            except FileNotFoundError:
                return None
        return self._state_without_ref(asset, cell, at)

    def states(self, cell: Cell) -> Callable[[str], StageRef | None]:
        """List the refs of a cell once; return a function that gives `state` of an asset by that listing."""
        last = self.refs.last_ones(cell)
        return lambda asset: self._present(asset, cell, last.get(asset))

    def _present(self, asset: str, cell: Cell, last: StageRef | None) -> StageRef | None:
        """Return a last ref whose rows are there."""
        if last is None:
            return self._state_without_ref(asset, cell, None)
        manifest = f"{last.table}/{manifest_file(last.lance_version)}"
        return last if self.store.entry(manifest) is not None else None

    def _state_without_ref(self, asset: str, cell: Cell, at: PinnedStage | None) -> StageRef | None:
        """Return what a table of a store of before refs states of itself."""
        if not has_earlier_tables(self.store):
            return None
        name = stage_path(asset, cell, at)
        dataset = lance_datasets.open_dataset(self.store.uri(name), int(at["lance_version"]) if at else None)
        raw = None if dataset is None else (dataset.schema.metadata or {}).get(META)
        if dataset is None or not raw:
            return None
        return StageRef(0, name, int(dataset.version), "", StageMeta(**json.loads(raw)))

    def save_plot(self, asset: str, cell: Cell, run_id: str, name: str, png: bytes) -> None:
        """Store a plot of a stage as a run drew it."""
        self.store.write(self._plot(asset, cell, run_id, name), png)

    def plot(self, asset: str, cell: Cell, run_id: str, name: str) -> bytes:
        return self.store.read(self._plot(asset, cell, run_id, name))

    @staticmethod
    def _plot(asset: str, cell: Cell, run_id: str, name: str) -> str:
        return f"stages/{asset}/{cell.path}.plots/{run_id}-{name}.png"

    def fence(self, asset: str, cell: Cell) -> int:
        """Return the number of the next ref, read before the work; `commit` fails when another run took it.

        What a store of before refs has published of the stage becomes its first ref, so that no upkeep takes
        it for a superseded version.
        """
        upgrade_layout(self.store)
        number = self.refs.next_number(asset, cell)
        if number == 1 and (found := self._state_without_ref(asset, cell, None)):
            # Where two runs do this at once, both have found the same.
            with suppress(Fenced):
                self._publish(asset, cell, replace(found, number=1))
            number = self.refs.next_number(asset, cell)
        return number

    def read(
        self,
        asset: str,
        cell: Cell,
        columns: list[str] | None = None,
        where: str | None = None,
        at: PinnedStage | None = None,
        limit: int | None = None,
    ) -> pa.RecordBatchReader:
        """Stream a stage as it is published now, or as a pin names it.

        Raises:
            NotMaterialized: when the asset was never materialized for the cell.
        """
        return self.rows(self.dataset(asset, cell, at), columns, where, limit)

    def read_or_empty(
        self,
        asset: str,
        cell: Cell,
        schema: pa.Schema,
        where: str | None = None,
        at: PinnedStage | None = None,
    ) -> pa.RecordBatchReader:
        """Stream the columns of `schema`, as `read` does; no rows where the asset was never materialized."""
        try:
            return self.read(asset, cell, schema.names, where, at)
        except NotMaterialized:
            return schema.empty_table().to_reader()

    def dataset(self, asset: str, cell: Cell, at: PinnedStage | None = None) -> lance.LanceDataset:
        """Open a stage as it is published now, or as a pin names it, for any number of reads.

        Raises:
            NotMaterialized: when the asset was never materialized for the cell.
        """
        state = self.state(asset, cell) if at is None else None
        place = state.place if state else at
        if place is None:
            raise NotMaterialized(asset, cell)
        uri = self.store.uri(stage_path(asset, cell, place))
        dataset = lance_datasets.open_dataset(uri, int(place["lance_version"]))
        if dataset is None:
            raise NotMaterialized(asset, cell)
        return dataset

    def open_once(self, asset: str, cell: Cell, state: StageRef, run_id: str) -> lance.LanceDataset:
        """Open the rows of a ref once in a run, since a version never changes.

        Raises:
            NotMaterialized: as `dataset`.
        """
        opened, place = _versions_of(run_id), (self.store.uri(state.table), state.lance_version)
        if place not in opened:
            opened[place] = self.dataset(asset, cell, state.place)
        return opened[place]

    def require_intact(self, asset: str, cell: Cell, dataset: lance.LanceDataset) -> None:
        """Check that the files of a version match their hashes.

        Raises:
            DamagedFiles: in one line, with the command that computes the rows again.
        """
        require_intact(dataset, f"stages/{asset}/{cell.path}")

    def mark_stale(self, asset: str, cell: Cell) -> None:
        """Publish a stage with the same rows and without its inputs, so that the next run computes it."""
        number, state = self.fence(asset, cell), self.state(asset, cell)
        if state is not None:
            self._publish(asset, cell, replace(state, number=number, meta=replace(state.meta, inputs="")))

    @staticmethod
    def rows(
        dataset: lance.LanceDataset,
        columns: list[str] | None = None,
        where: str | None = None,
        limit: int | None = None,
    ) -> pa.RecordBatchReader:
        """Stream a version that `dataset` has opened."""
        return lance_datasets.reader(dataset, dataset.schema.remove_metadata(), columns, where, limit)

    def write(
        self,
        asset: str,
        cell: Cell,
        contract: Contract,
        batches: Iterable[pa.Table],
        others: Iterable[Cell] = (),
    ) -> WrittenRows:
        """Cast, digest and write the rows of a stage, which no reader sees before `commit`.

        Args:
            others: cells whose rows may be the base of these, best first, if this one has none yet.
        """
        own = self.state(asset, cell)
        base = own or next(filter(None, (self._adopt(asset, other) for other in others)), None)
        bases = [(base.table, base.lance_version)] if base else []
        return self._writer(asset, cell, contract).write(
            _own_table(self.refs, asset, cell, own), batches, bases
        )

    def write_changes(
        self,
        asset: str,
        cell: Cell,
        contract: Contract,
        batches: Iterable[pa.Table],
        base: StageRef,
        owner: str,
        owners: pa.Array,
    ) -> WrittenRows:
        """Write the rows of some owners on top of a base, whose other rows stay; as `write` otherwise.

        Args:
            base: ref of rows for which `is_sound_base` holds.
            owner, owners: column that names the owner of a row, and those whose rows `batches` are.
        """
        own = _own_table(self.refs, asset, cell, self.state(asset, cell))
        return self._writer(asset, cell, contract).write_changes(
            (base.table, base.lance_version, base.digest), own, batches, owner, owners
        )

    def is_sound_base(self, base: StageRef, contract: Contract) -> bool:
        """Return whether the rows of a ref are there, whole and of the contract's columns."""
        return StageWriter(self.store, contract, "").sound_base(base.table, base.lance_version) is not None

    def _writer(self, asset: str, cell: Cell, contract: Contract) -> StageWriter:
        return StageWriter(self.store, contract, f"{asset} {cell.partition_key}")

    def _adopt(self, asset: str, cell: Cell) -> StageRef | None:
        """Return the last ref of a cell, after a table of a store of before refs has got one."""
        found = self.state(asset, cell)
        if found is not None and found.number == 0:
            self.fence(asset, cell)
            return self.state(asset, cell)
        return found

    def commit(
        self,
        asset: str,
        cell: Cell,
        written: WrittenRows,
        meta: StageMeta,
        number: int,
        code: str = "",
        read: Mapping[str, list[Any]] | None = None,
    ) -> None:
        """Publish written rows with the stage's metadata, by one ref.

        Args:
            number: as `fence` returned it before the work.
            code, read: see `StageRef`.

        Raises:
            Fenced: when another run published since.
        """
        names = ("table", "lance_version", "base", "gone", "added", "digest")
        place = {name: getattr(written, name) for name in names}
        ref = StageRef(number, **place, tag="", meta=meta, code=code, read=dict(read or {}))
        self._publish(asset, cell, ref)

    def _publish(self, asset: str, cell: Cell, ref: StageRef) -> None:
        """Tag the rows and failures of a ref, then create it."""
        ref = replace(ref, tag=ref_tag(cell, ref.number, ref.lance_version))
        _tag_failures(self.store, asset, cell, ref)
        dataset_versions.tag(self.store.uri(ref.table), ref.lance_version, ref.tag)
        self.refs.create(asset, cell, ref)


@lru_cache(maxsize=8)
def _versions_of(run_id: str) -> dict[tuple[str, int], lance.LanceDataset]:  # noqa: ARG001 - the cache's key
    """Return the versions of tables that a run has opened in this process."""
    return {}


def _tag_failures(store: Store, asset: str, cell: Cell, ref: StageRef) -> None:
    if ref.meta.failures:
        tag = ref_tag(cell, ref.number, ref.meta.failures)
        dataset_versions.tag(store.uri(failures_path(asset, cell)), ref.meta.failures, tag)


def _own_table(refs: StageRefs, asset: str, cell: Cell, own: StageRef | None) -> str:
    """Return the name of the table into which a cell's rows are written whole.

    Never that of a table that was lost or removed: refs name versions of it, which would have other rows.
    """
    if own is not None and is_own_table(own.table, asset, cell):
        return own.table
    if refs.last(asset, cell) is None:
        return stage_path(asset, cell)
    return f"stages/{asset}/{cell.path}-{time.time_ns()}.lance"


def failures_path(asset: str, cell: Cell) -> str:
    """Return the name in the store of the table of a stage's failures."""
    return f"failures/{asset}/{cell.path}.lance"
