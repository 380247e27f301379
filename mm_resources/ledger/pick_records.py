"""The records of picks: samples that were chosen by their vectors, each with what speaks for it."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mm_embed_kernels.contracts import PICKS
from mm_embed_kernels.errors import UserError, unknown_choice
from mm_resources.cell import Cell
from mm_resources.storage.store import Store

_FOLDER, _ENDING = "ledger/picks", ".parquet"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


class PickRecords:
    """The picks of a store: one Parquet file each, created exclusively; they lose forgotten samples alone."""

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
        if not self._store.create(_file(cell, name), _encode(rows)):
            raise _name_error(cell, name)

    def names(self, cell: Cell) -> list[str]:
        """Return the names of a cell's picks, sorted."""
        return sorted(each.removesuffix(_ENDING) for each in self._store.names(_folder(cell)))

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
        return self._rows(_file(cell, name)).sort_by([("rank", "ascending"), ("sample_id", "ascending")])

    def forget(self, samples: Iterable[str]) -> Iterator[tuple[str, int]]:
        """Take samples out of all picks; what is left keeps its rank. Yield changed files and lost rows.

        Raises:
            UserError: where a file cannot be read, since it may name one of them.
        """
        gone = pa.array(list(samples), pa.string())
        for entry in list(self._store.objects(_FOLDER)):
            if not entry.name.endswith(_ENDING):
                continue  # what a killed command has left
            rows = self._rows(entry.name)
            left = rows.filter(pc.invert(pc.is_in(rows["sample_id"], gone)))
            if left.num_rows < rows.num_rows:
                self._store.write(entry.name, _encode(left))
                yield entry.name, rows.num_rows - left.num_rows

    def _rows(self, file: str) -> pa.Table:
        try:
            return PICKS.cast(pq.read_table(io.BytesIO(self._store.read(file))))
        except (pa.ArrowException, OSError) as error:
            raise UserError(
                f"pick {file} cannot be read: {error}; restore it from a backup, or remove it and pick again"
            ) from error


def _encode(rows: pa.Table) -> bytes:
    sink = io.BytesIO()
    pq.write_table(PICKS.cast(rows), sink)
    return sink.getvalue()


def _name_error(cell: Cell, name: str) -> UserError:
    return UserError(
        f"{cell.partition_key} has a pick named {name!r} already, and a pick does not change; "
        "choose another name by --as"
    )


def _folder(cell: Cell) -> str:
    return f"{_FOLDER}/{cell.path}"


def _file(cell: Cell, name: str) -> str:
    return f"{_folder(cell)}/{name}{_ENDING}"
