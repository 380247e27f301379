"""Batches and rows in temporary files, for streams too large for memory that are read more than once."""

from __future__ import annotations

import pickle
import tempfile
from collections.abc import Iterable, Iterator
from threading import Lock
from typing import Any

import pyarrow as pa

_MEMORY_ROWS = 2_048


class TableSpool:
    """Batches in a temporary file: written once, then streamed any number of times.

    The file is removed with the object.
    """

    def __init__(self, schema: pa.Schema) -> None:
        self.schema, self.rows = schema, 0
        self._file = tempfile.NamedTemporaryFile(prefix="mm-spool-")  # noqa: SIM115 - the object's own
        self._writer = pa.ipc.new_stream(self._file, schema)
        self._finishing = Lock()

    @staticmethod
    def of(batches: pa.RecordBatchReader) -> TableSpool:
        """Write a whole stream."""
        spool = TableSpool(batches.schema)
        for batch in batches:
            spool.add(batch)
        return spool

    def add(self, rows: pa.RecordBatch | pa.Table) -> None:
        self._writer.write(rows)
        self.rows += rows.num_rows

    def reader(self, columns: list[str] | None = None) -> pa.RecordBatchReader:
        """Stream all rows; the first call ends the writing.

        The file is read, not mapped, so that its pages do not count as this process's memory. Threads may
        call at once: the end of the file is written completely before it is read.
        """
        with self._finishing:
            self._writer.close()
            self._file.flush()
        batches = pa.ipc.open_stream(pa.OSFile(self._file.name, "rb"))
        if columns is None:
            return batches
        schema = pa.schema([batches.schema.field(name) for name in columns])
        return pa.RecordBatchReader.from_batches(schema, (batch.select(columns) for batch in batches))


class Spill:
    """A list of rows that only grows; all but the last ones lie on disk."""

    def __init__(self) -> None:
        self._recent: list[dict[str, Any]] = []
        self._file: Any = None

    def append(self, row: dict[str, Any]) -> None:
        self._recent.append(row)
        if len(self._recent) >= _MEMORY_ROWS:
            if self._file is None:
                self._file = tempfile.TemporaryFile(prefix="mm-spill-")  # noqa: SIM115 - as above
            pickle.dump(self._recent, self._file)
            self._recent = []

    def __iadd__(self, rows: Iterable[dict[str, Any]]) -> Spill:
        for row in rows:
            self.append(row)
        return self

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Yield all rows, in order; none may be added meanwhile."""
        if self._file is not None:
            self._file.seek(0)
            while True:
                try:
                    yield from pickle.load(self._file)
                except EOFError:
                    break
        yield from self._recent
