"""Out-of-core joins and groupings over Arrow streams, by DuckDB: bounded memory, spilling to disk."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing.util import Finalize
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

BATCH_ROWS = 16_384
# Streams chosen columns of the same rows as often as it is called.
Reader = Callable[[list[str]], pa.RecordBatchReader]


def memory_limit() -> str:
    """What one statement may hold in memory: ``MM_SQL_MEMORY``."""
    return os.environ.get("MM_SQL_MEMORY", "512MB")


class OutOfMemory(Exception):
    """A statement needs more memory than `memory_limit` allows, and spilling does not help."""


@contextmanager
def typed_errors() -> Iterator[None]:
    """Raise `OutOfMemory` where a statement, or what reads the stream of its rows, fails for lack of memory.

    Arrow's C stream interface passes an error on as a text. A statement that reads another one's stream, or Lance,
    therefore raises an error of its own type, in which only DuckDB's words tell the cause.
    """
    try:
        yield
    except OutOfMemory:
        raise
    except Exception as error:
        if isinstance(error, duckdb.OutOfMemoryException) or "Out of Memory Error" in str(error):
            raise OutOfMemory(str(error)) from error
        raise


@contextmanager
def query(statement: str, **streams: pa.RecordBatchReader | pa.Table) -> Iterator[pa.RecordBatchReader]:
    """Run one SQL statement over named Arrow streams and stream its result.

    Memory is bounded by ``MM_SQL_MEMORY`` (default 512MB); what does not fit spills to a temporary folder.
    """
    with _connected() as connection:
        for name, stream in streams.items():
            connection.register(name, stream)
        yield connection.sql(statement).to_arrow_reader(BATCH_ROWS)


# Databases that no statement uses, by process: to start one takes as long as many a statement. A fork starts its own.
_idle: dict[int, list[duckdb.DuckDBPyConnection]] = {}


@contextmanager
def _connected() -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection to an empty database that nothing else uses meanwhile."""
    idle = _idle.setdefault(os.getpid(), [])
    database = idle.pop() if idle else _started()
    database.execute(f"SET memory_limit = {literal(memory_limit())}")
    connection = database.cursor()
    try:
        with typed_errors():
            yield connection
    finally:
        connection.close()
    # Only a limit below what it keeps for later makes it give that back. After an error, or while a result that was not read to
    # its end holds some of it, it is not used again.
    with suppress(duckdb.OutOfMemoryException):
        database.execute("SET memory_limit = '1MB'")
        idle.append(database)


def _started() -> duckdb.DuckDBPyConnection:
    spill = tempfile.mkdtemp(prefix="mm-sql-")
    # Not `atexit`, which children of multiprocessing (Dagster's run workers are) pass by.
    Finalize(None, shutil.rmtree, (spill, True), exitpriority=10)
    # An order that nobody asked for would hold back what could spill.
    return duckdb.connect(config={"temp_directory": spill, "threads": 2, "preserve_insertion_order": False})


def fetch(statement: str, **streams: pa.RecordBatchReader | pa.Table) -> pa.Table:
    """Like `query`, for results that are small."""
    with query(statement, **streams) as reader:
        return reader.read_all()


def save(statement: str, path: Path, **streams: pa.RecordBatchReader | pa.Table) -> Path:
    """Like `query`, into a Parquet file that later statements read as often as they want (see `stored`)."""
    with (
        query(statement, **streams) as reader,
        pq.ParquetWriter(path, reader.schema, compression="lz4") as sink,
    ):
        for batch in reader:
            sink.write_batch(batch)
    return path


def stored(path: Path) -> str:
    """A Parquet file as SQL names it."""
    return f"read_parquet({literal(str(path))})"


def numbered(read: Reader) -> Reader:
    """A reader that numbers its rows as ``n``, int32, from 0; a row has the same number however often it is read."""

    def again(columns: list[str]) -> pa.RecordBatchReader:
        found = read(columns)

        def batches() -> Iterator[pa.RecordBatch]:
            count = 0
            for batch in found:
                numbers = pa.array(np.arange(count, count + batch.num_rows, dtype=np.int32))
                yield pa.record_batch([*batch.columns, numbers], schema=schema)
                count += batch.num_rows

        schema = found.schema.append(pa.field("n", pa.int32()))
        return pa.RecordBatchReader.from_batches(schema, batches())

    return again


def beside(tables: Iterable[pa.Table], more: pa.RecordBatchReader) -> Iterator[pa.Table]:
    """The columns of two streams that hold the same rows in the same order, whatever their batches.

    So that a sort or a join of the narrow one need not carry the wide one.

    Raises:
        ValueError: when they have not equally many rows.
    """
    held = more.schema.empty_table()
    for table in tables:
        while held.num_rows < table.num_rows:
            try:
                held = pa.concat_tables([held, pa.Table.from_batches([more.read_next_batch()])])
            except StopIteration:
                raise ValueError("the second stream ends before the first") from None
        for name in held.column_names:
            table = table.append_column(name, held[name].slice(0, table.num_rows))
        held = held.slice(table.num_rows)
        yield table
    if held.num_rows or any(batch.num_rows for batch in more):
        raise ValueError("the first stream ends before the second")


def literal(text: str) -> str:
    """A text as SQL writes it."""
    return "'" + text.replace("'", "''") + "'"


class RowDigest:
    """Order-independent digest over chosen columns of a stream of batches.

    Each row's columns are hashed as JSON (md5) and the hashes are XORed, so that two tables with the same rows in
    another order, or cut into other batches, have the same digest. Rows must be unique, as keys guarantee.
    """

    def __init__(self, columns: tuple[str, ...]) -> None:
        self.columns = columns
        self.rows = 0
        self._state = 0

    def update(self, batch: pa.Table) -> None:
        if batch.num_rows == 0:
            return
        self.rows += batch.num_rows
        chosen = [name for name in self.columns if name in batch.column_names]
        packed = ", ".join(f'"{name}" := "{name}"' for name in chosen)
        statement = f"SELECT bit_xor(md5_number(to_json(struct_pack({packed}))::VARCHAR)) AS hash FROM batch"
        with _connected() as connection:
            connection.register("batch", batch.select(chosen))
            self._state ^= int(connection.execute(statement).fetchall()[0][0])

    def hexdigest(self) -> str:
        return f"{self.rows:x}-{self._state:032x}"


# Streams chosen columns of all samples of the cell, for rules that compare samples with each other.
CellReader = Callable[[list[str]], pa.RecordBatchReader]
