"""What is too much for memory and is needed once more: batches and rows in temporary files."""

from __future__ import annotations

import pickle
import tempfile
from collections.abc import Iterable, Iterator
from threading import Lock
from typing import Any

import pyarrow as pa

_HELD_ROWS = 2_048


class TableSpool:
    """Batches in a temporary file: written once, then streamed as often as wanted. The file goes with the object."""

    def __init__(self, schema: pa.Schema) -> None:
        self.schema, self.rows = schema, 0
        self._file = tempfile.NamedTemporaryFile(prefix="mm-spool-")  # noqa: SIM115 - lives as long as the object
        self._writer = pa.ipc.new_stream(self._file, schema)
        self._ending = Lock()

    @staticmethod
    def of(batches: pa.RecordBatchReader) -> TableSpool:
        spool = TableSpool(batches.schema)
        for batch in batches:
            spool.add(batch)
        return spool

    def add(self, rows: pa.RecordBatch | pa.Table) -> None:
        self._writer.write(rows)
        self.rows += rows.num_rows

    def reader(self, columns: list[str] | None = None) -> pa.RecordBatchReader:
        """All rows, streamed (not mapped, so that none counts as this process's memory); none may be added any more.

        Threads may ask at once: what ends the file is written whole before it is read.
        """
        with self._ending:
            self._writer.close()
            self._file.flush()
        found = pa.ipc.open_stream(pa.OSFile(self._file.name, "rb"))
        if columns is None:
            return found
        schema = pa.schema([found.schema.field(name) for name in columns])
        return pa.RecordBatchReader.from_batches(schema, (batch.select(columns) for batch in found))


class Spill:
    """A list of rows that only grows; all but the last of them lie on disk."""

    def __init__(self) -> None:
        self._held: list[dict[str, Any]] = []
        self._file: Any = None

    def append(self, row: dict[str, Any]) -> None:
        self._held.append(row)
        if len(self._held) >= _HELD_ROWS:
            if self._file is None:
                self._file = tempfile.TemporaryFile(prefix="mm-spill-")  # noqa: SIM115 - lives as long as the object
            pickle.dump(self._held, self._file)
            self._held = []

    def __iadd__(self, rows: Iterable[dict[str, Any]]) -> Spill:
        for row in rows:
            self.append(row)
        return self

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """All rows, in order; none may be added while this goes on."""
        if self._file is not None:
            self._file.seek(0)
            while True:
                try:
                    yield from pickle.load(self._file)
                except EOFError:
                    break
        yield from self._held
