"""Read upstream tables through their contracts."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import pyarrow as pa

from mm_embed_kernels.contracts import Contract
from mm_resources.ledger.cell_snapshot import CellSnapshot
from mm_resources.storage.missing_columns import fill_columns
from mm_resources.storage.row_ids import find_rows, read_rows
from mm_resources.tables.stage_tables import NotMaterialized, StageTables

# A column of a version of a table: its URI, Lance version, name ("" for the files of all columns).
_ContractColumn = tuple[str, int, str]


class UpstreamRows:
    """The upstream tables of one cell as one stage of a run reads them.

    Args:
        run_id: the run; its later stages do not check again the columns that an earlier one has checked.
    """

    def __init__(self, tables: StageTables, snapshot: CellSnapshot, run_id: str) -> None:
        self._tables, self._snapshot, self._run_id = tables, snapshot, run_id
        # By asset, key and message, since a stage may read a table more than once.
        self._violations: dict[tuple[str, str, str], dict[str, Any]] = {}

    def read(
        self,
        asset: str,
        contract: Contract,
        columns: list[str] | None,
        chosen: tuple[str, pa.Array] | None = None,
    ) -> pa.RecordBatchReader:
        """Stream a table as it was at entry; a row that violates its contract is recorded and left out.

        Args:
            chosen: column and values of the rows that are read; all by default.

        Raises:
            NotMaterialized: when the asset was never materialized for the cell.
            DamagedFiles: when its files differ from their hashes.
        """
        cell, state = self._snapshot.cell, self._snapshot.state(asset)
        if state is None:
            raise NotMaterialized(asset, cell)
        dataset = self._tables.open_once(asset, cell, state, self._run_id)
        place = str(dataset.uri), int(dataset.version)
        if (whole := (*place, "")) not in (checked := _checked_columns(self._run_id)):
            self._tables.require_intact(asset, cell, dataset)
            checked.add(whole)
        if chosen is None:
            reader = self._tables.rows(dataset, columns)
        else:
            reader = read_rows(dataset, find_rows(dataset, *chosen), columns or dataset.schema.names)
        # Contracts grow: a table of before lacks the newest columns.
        wanted = contract.bare if columns is None else reader.schema
        columns_read: dict[str, _ContractColumn] = {name: (*place, name) for name in reader.schema.names}
        # A version never changes: columns that this run has read completely without a violation are not
        # checked again.
        unchecked = [name for name, column in columns_read.items() if column not in checked]

        def checked_batches() -> Iterator[pa.RecordBatch]:
            valid = True
            for batch in reader:
                good, broken = contract.split(pa.Table.from_batches([batch]), unchecked)
                valid = valid and not broken
                for row, line in broken:
                    self._violations[asset, str(row.get(contract.key)), line] = _violation(row, asset, line)
                yield from good.to_batches()
            if valid and chosen is None:
                checked.update(columns_read.values())

        rows = pa.RecordBatchReader.from_batches(reader.schema, checked_batches())
        return fill_columns(rows, wanted)

    def count_rows(self, asset: str) -> int:
        """Count the rows that passed the contract. Valid only after `read` was exhausted."""
        meta = self._snapshot.meta(asset)
        return (meta.rows if meta else 0) - len({row for name, row, _ in self._violations if name == asset})

    def violations(self) -> Iterator[dict[str, Any]]:
        """Yield a failure event for each row and violation of its contract."""
        yield from self._violations.values()


@lru_cache(maxsize=8)
def _checked_columns(run_id: str) -> set[_ContractColumn]:  # noqa: ARG001 - the cache's key
    """Return the columns that a run has read completely in this process, without a violation."""
    return set()


def _violation(row: dict[str, Any], asset: str, line: str) -> dict[str, Any]:
    names = ("sample_id", "segment_id", "content_hash", "source_uri")
    return {
        **{name: row.get(name) for name in names},
        "error_class": "contract_violation",
        "message": f"{asset}: {line}",
    }
