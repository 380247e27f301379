"""The log of picks: samples that were chosen by their vectors, each with what speaks for it."""

from __future__ import annotations

from datetime import UTC, datetime

import pyarrow as pa

from mm_embed_kernels import sql
from mm_embed_kernels.contracts import PICKS
from mm_embed_kernels.errors import UserError, unknown_choice
from mm_resources.cell import Cell
from mm_resources.storage import lance_datasets
from mm_resources.storage.store import Store


class PickLog:
    """The picks of a store, append-only; a name stands for one pick of a cell for ever."""

    def __init__(self, store: Store) -> None:
        self._uri = store.uri("ledger/picks.lance")

    def record(self, cell: Cell, name: str, rows: pa.Table) -> None:
        """Append a pick.

        Args:
            rows: columns of `PICKS` without the cell's, ``pick`` and ``at``.

        Raises:
            UserError: where the cell has a pick of this name.
        """
        if name in self.names(cell):
            raise UserError(
                f"{cell.partition_key} has a pick named {name!r} already, and a pick does not change; "
                "choose another name by --as"
            )
        now = datetime.now(UTC)
        shared = {
            "pick": name,
            "dataset": cell.dataset,
            "version": cell.version,
            "modality": cell.modality,
            "at": now,
        }
        for column, value in shared.items():
            kind = PICKS.schema.field(column).type
            rows = rows.append_column(column, pa.repeat(pa.scalar(value, kind), rows.num_rows))
        if rows.num_rows:
            lance_datasets.append(self._uri, PICKS.cast(rows))

    def names(self, cell: Cell) -> list[str]:
        """Return the names of a cell's picks, sorted."""
        rows = self._read(cell, ["pick"])
        found = sql.fetch("SELECT DISTINCT pick FROM rows ORDER BY 1", rows=rows)
        return list(found["pick"].to_pylist())

    def read(self, cell: Cell, name: str) -> pa.Table:
        """Return a pick in its order, as `PICKS`.

        Raises:
            UserError: where the cell has no pick of this name.
        """
        columns = PICKS.bare.names
        rows = self._read(cell, columns, f" AND pick = {sql.literal(name)}")
        found = sql.fetch("SELECT * FROM rows ORDER BY rank, sample_id", rows=rows)
        if not found.num_rows:
            names = self.names(cell)
            if not names:
                raise UserError(f"{cell.partition_key} has no picks; run `mm pick {cell.dataset_version}`")
            raise unknown_choice(f"pick of {cell.partition_key}", name, names)
        return found

    def _read(self, cell: Cell, columns: list[str], condition: str = "") -> pa.RecordBatchReader:
        where = " AND ".join(
            f"{column} = {sql.literal(value)}"
            for column, value in (
                ("dataset", cell.dataset),
                ("version", cell.version),
                ("modality", cell.modality),
            )
        )
        dataset = lance_datasets.open_dataset(self._uri)
        return lance_datasets.reader(dataset, PICKS.bare, columns, where + condition)
