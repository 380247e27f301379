"""The log of reviews: people's decisions to keep or drop a sample, and the labels that they give."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from mm_embed_kernels import sql
from mm_embed_kernels.contracts import MARKS
from mm_resources.cell import Cell
from mm_resources.storage import lance_datasets
from mm_resources.storage.missing_columns import read_columns
from mm_resources.storage.store import Store

_LATEST = """
SELECT sample_id, arg_max(mark, "at") AS mark, arg_max(coalesce(content_hash, ''), "at") AS content_hash
FROM reviews WHERE mark <> 'label' GROUP BY sample_id
"""
_LABELS = """
SELECT sample_id, arg_max(label, "at") AS label FROM reviews WHERE label IS NOT NULL GROUP BY sample_id
HAVING arg_max(label, "at") <> '' ORDER BY sample_id
"""


class ReviewLog:
    """The reviews of a store, append-only; the latest review of a sample counts."""

    def __init__(self, store: Store) -> None:
        self._uri = store.uri("ledger/marks.lance")

    def record(self, rows: Iterable[dict[str, Any]]) -> int:
        """Append reviews, all with the same time; return their number.

        Args:
            rows: dicts of `MARKS` without ``at``.
        """
        now = datetime.now(UTC)
        table = MARKS.rows([{**row, "at": now} for row in rows])
        if table.num_rows:
            lance_datasets.widen(self._uri, MARKS.bare)
            lance_datasets.append(self._uri, table)
        return int(table.num_rows)

    def latest(self, cell: Cell) -> pa.Table:
        """Return the latest review of each sample of a cell's dataset and modality.

        Returns:
            ``sample_id``, ``mark`` and ``content_hash``, which is "" when it was unknown at the time of the
            review.
        """
        return self._fetch(_LATEST, cell, ["sample_id", "mark", "content_hash", "at"])

    def labels(self, cell: Cell) -> pa.Table:
        """Return the latest label that a person gave each sample of a cell's dataset and modality.

        Returns:
            ``sample_id`` and ``label``.
        """
        return self._fetch(_LABELS, cell, ["sample_id", "label", "at"])

    def _fetch(self, statement: str, cell: Cell, columns: list[str]) -> pa.Table:
        where = f"dataset = '{cell.dataset}' AND modality = '{cell.modality}'"
        dataset = lance_datasets.open_dataset(self._uri)
        wanted = pa.schema([MARKS.bare.field(name) for name in columns])
        return sql.fetch(statement, reviews=read_columns(dataset, wanted, where))
