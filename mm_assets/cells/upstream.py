"""Read upstream tables through their contracts."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import pyarrow as pa

from mm_embed_kernels.contracts import Contract
from mm_resources.cell import Cell
from mm_resources.ledger.cell_snapshot import CellSnapshot
from mm_resources.tables.stage_tables import StageTables

# A column of a version of a table: asset, cell, Lance version, name.
_Place = tuple[str, Cell, int, str]


class UpstreamRows:
    """The upstream tables of one cell as one stage of a run reads them.

    Args:
        run_id: columns that this run has checked to their end are not checked again by its later stages.
    """

    def __init__(self, tables: StageTables, snapshot: CellSnapshot, run_id: str) -> None:
        self._tables, self._snapshot, self._run_id = tables, snapshot, run_id
        # Keyed, since a stage may read a table more than once.
        self._violations: dict[tuple[str, str, str], dict[str, Any]] = {}

    def read(self, asset: str, contract: Contract, columns: list[str] | None) -> pa.RecordBatchReader:
        """Stream a table as it was at entry; a row that breaks its contract becomes a violation instead.

        Raises:
            LookupError: when the asset was never materialized for the cell.
        """
        cell = self._snapshot.cell
        dataset = self._tables.dataset(asset, cell, self._snapshot.lance_version(asset))
        reader, checked = self._tables.rows(dataset, columns), _checked_columns(self._run_id)
        places: dict[str, _Place] = {
            name: (asset, cell, dataset.version, name) for name in reader.schema.names
        }
        # A version never changes: what this run has read to its end without a broken row is not checked
        # again.
        unchecked = [name for name, place in places.items() if place not in checked]

        def gated() -> Iterator[pa.RecordBatch]:
            whole = True
            for batch in reader:
                good, broken = contract.split(pa.Table.from_batches([batch]), unchecked)
                whole = whole and not broken
                for row, line in broken:
                    self._violations[asset, str(row.get(contract.key)), line] = _violation(row, asset, line)
                yield from good.to_batches()
            if whole:
                checked.update(places.values())

        return pa.RecordBatchReader.from_batches(reader.schema, gated())

    def sound_rows(self, asset: str) -> int:
        """Number of rows that passed the contract. Valid only after `read` was exhausted."""
        meta = self._snapshot.meta(asset)
        return (meta.rows if meta else 0) - len({row for name, row, _ in self._violations if name == asset})

    def violations(self) -> Iterator[dict[str, Any]]:
        """A failure event for each broken row and the line that says how."""
        yield from self._violations.values()


@lru_cache(maxsize=8)
def _checked_columns(run_id: str) -> set[_Place]:  # noqa: ARG001 - the cache's key
    """Columns that this process has read to their end, in a run, without a broken row."""
    return set()


def _violation(row: dict[str, Any], asset: str, line: str) -> dict[str, Any]:
    names = ("sample_id", "segment_id", "content_hash", "source_uri")
    return {
        **{name: row.get(name) for name in names},
        "error_class": "contract_violation",
        "message": f"{asset}: {line}",
    }
