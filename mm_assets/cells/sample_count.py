"""Count the samples that leave a stage while its rows are written."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

# The column and value of the rows whose samples go on, where a stage keeps rows of others.
_GOES_ON: dict[str, tuple[str, Any]] = {
    "raw_assets": ("status", "fetched"),
    "sample_metadata": ("probe", "ok"),
    "curated_samples": ("kept", True),
    "embeddings": ("status", "ok"),
}
# Stages of which a sample may have many rows.
_BY_SEGMENT = ("segments", "embeddings", "normalized_features")
_MERGED_IDS = 1 << 20


class SampleCount:
    """Counts distinct samples in 16 bytes each; those of a stage without rows by sample are not known."""

    def __init__(self, asset: str) -> None:
        self.asset = asset
        self._rows: int | None = None
        self._ids: list[np.ndarray[Any, Any]] = []

    def counted(self, tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
        """The same tables."""
        for table in tables:
            if "sample_id" in table.column_names:
                self._add(table)
            yield table

    def _add(self, table: pa.Table) -> None:
        if self.asset in _GOES_ON:
            column, value = _GOES_ON[self.asset]
            table = table.select(
                ["sample_id", column]
            )  # not the lists of decisions, which take most of the time
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
