"""The records of picks: samples that were chosen by their vectors, each with what speaks for it."""

from __future__ import annotations

import io
import re
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.parquet as pq

from mm_embed_kernels.contracts import PICKS
from mm_embed_kernels.errors import UserError, unknown_choice
from mm_resources.cell import Cell
from mm_resources.storage.store import Store

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


class PickRecords:
    """The picks of a store: one Parquet file each, created exclusively, so that a pick never changes."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def require_new(self, cell: Cell, name: str) -> None:
        """Check the name of a pick that is to be made.

        Raises:
            UserError: for a name of other characters, or of a pick that the cell has.
        """
        if not _NAME.fullmatch(name):
            raise UserError(
                f"{name[:100]!r} is no name of a pick; give up to 100 letters, digits, dots, hyphens and "
                "underscores by --as"
            )
        if self._store.entry(_file(cell, name)) is not None:
            raise _name_error(cell, name)

    def create(self, cell: Cell, name: str, rows: pa.Table) -> None:
        """Record a pick.

        Args:
            rows: columns of `PICKS` without the cell's, ``pick`` and ``at``.

        Raises:
            UserError: as `require_new`.
        """
        self.require_new(cell, name)
        shared = {
            "pick": name,
            "dataset": cell.dataset,
            "version": cell.version,
            "modality": cell.modality,
            "at": datetime.now(UTC),
        }
        for column, value in shared.items():
            kind = PICKS.schema.field(column).type
            rows = rows.append_column(column, pa.repeat(pa.scalar(value, kind), rows.num_rows))
        sink = io.BytesIO()
        pq.write_table(PICKS.cast(rows), sink)
        if not self._store.create(_file(cell, name), sink.getvalue()):
            raise _name_error(cell, name)

    def names(self, cell: Cell) -> list[str]:
        """Return the names of a cell's picks, sorted."""
        return sorted(each.removesuffix(".parquet") for each in self._store.names(_folder(cell)))

    def read(self, cell: Cell, name: str) -> pa.Table:
        """Return a pick as `PICKS`, by rank.

        Raises:
            UserError: where the cell has no pick of this name, or its file cannot be read.
        """
        known = self.names(cell)
        if not known:
            raise UserError(f"{cell.partition_key} has no picks; run `mm pick {cell.dataset_version}`")
        if name not in known:
            raise unknown_choice(f"pick of {cell.partition_key}", name, known)
        try:
            rows = pq.read_table(io.BytesIO(self._store.read(_file(cell, name))))
            return PICKS.cast(rows).sort_by([("rank", "ascending"), ("sample_id", "ascending")])
        except (pa.ArrowException, OSError) as error:
            raise UserError(
                f"pick {name} of {cell.partition_key} cannot be read: {error}; restore {_file(cell, name)} "
                "from a backup, or pick again under another name"
            ) from error


def _name_error(cell: Cell, name: str) -> UserError:
    return UserError(
        f"{cell.partition_key} has a pick named {name!r} already, and a pick does not change; "
        "choose another name by --as"
    )


def _folder(cell: Cell) -> str:
    return f"ledger/picks/{cell.path}"


def _file(cell: Cell, name: str) -> str:
    return f"{_folder(cell)}/{name}.parquet"
