"""Count the samples that a stage passes on, while its rows are written."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

# Column and value that select the rows passed to the next stage.
_PASSED_ROWS: dict[str, tuple[str, Any]] = {
    "raw_assets": ("status", "fetched"),
    "sample_metadata": ("probe", "ok"),
    "curated_samples": ("kept", True),
    "embeddings": ("status", "ok"),
}
# Stages with several rows for a sample.
_BY_SEGMENT = ("segments", "embeddings", "normalized_features")
_MERGED_IDS = 1 << 20


class SampleCount:
    """Counts distinct samples, in 16 bytes of memory each.

    Attributes:
        samples: the count; None for a stage without sample ids.
    """

    def __init__(self, asset: str) -> None:
        self.asset = asset
        self._rows: int | None = None
        self._ids: list[np.ndarray[Any, Any]] = []

    def columns(self, names: list[str]) -> list[str]:
        """Return the columns that the count needs, of a stage with some columns."""
        passed = [_PASSED_ROWS[self.asset][0]] if self.asset in _PASSED_ROWS else []
        return [name for name in ("sample_id", *passed) if name in names]

    def count_samples(self, tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
        """Yield the tables unchanged, and count their samples."""
        for table in tables:
            if "sample_id" in table.column_names:
                self._add(table)
            yield table

    def add_all(self, rows: pa.RecordBatchReader) -> None:
        """Count the samples of a stream."""
        for _ in self.count_samples(pa.Table.from_batches([batch]) for batch in rows):
            pass

    def _add(self, table: pa.Table) -> None:
        if self.asset in _PASSED_ROWS:
            column, value = _PASSED_ROWS[self.asset]
            # Without the lists of decisions, which take most of the time.
            table = table.select(["sample_id", column])
            table = table.filter(pc.equal(table[column], value))
        self._rows = (self._rows or 0) + table.num_rows
        if self.asset in _BY_SEGMENT:
            ids = "".join(pc.unique(table["sample_id"]).to_pylist())
            self._ids.append(np.frombuffer(bytes.fromhex(ids), "S16"))
            if sum(map(len, self._ids[1:])) > max(_MERGED_IDS, len(self._ids[0])):
                self._ids = [np.unique(np.concatenate(self._ids))]

    @property
    def samples(self) -> int | None:
        if self._ids:
            return len(np.unique(np.concatenate(self._ids)))
        return self._rows
