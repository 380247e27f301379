"""SQL over Arrow streams, by DuckDB: joins and groupings in bounded memory, which spill to disk."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from multiprocessing.util import Finalize
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

BATCH_ROWS = 16_384
# Streams chosen columns of the same rows, such as all samples of a cell, each time it is called.
CellReader = Callable[[list[str]], pa.RecordBatchReader]


def memory_limit() -> str:
    """Return the memory of one statement, as DuckDB writes it: ``MM_SQL_MEMORY``, by default 512MB."""
    return os.environ.get("MM_SQL_MEMORY", "512MB")


class OutOfMemory(Exception):
    """A statement needs more memory than `memory_limit` allows, and spilling does not help."""


@contextmanager
def typed_errors() -> Iterator[None]:
    """Raise `OutOfMemory` where a statement, or what reads the stream of its rows, fails for lack of memory.

    Arrow's C stream interface passes an error on as a text. Whatever reads the stream (pyarrow, Lance,
    another statement) therefore raises an error of its own type, of which only DuckDB's message gives the
    cause.
    """
    try:
        yield
    except OutOfMemory:
        raise
    except Exception as error:  # a reader of the stream raises an error of its own type
        if isinstance(error, duckdb.OutOfMemoryException) or "Out of Memory Error" in str(error):
            raise OutOfMemory(str(error)) from error
        raise


@contextmanager
def query(statement: str, **streams: pa.RecordBatchReader | pa.Table) -> Iterator[pa.RecordBatchReader]:
    """Run one SQL statement over Arrow streams and stream its result.

    Memory is bounded by `memory_limit`; beyond it the statement spills to a temporary folder.

    Args:
        statement: SQL; values go into it by `literal`, identifiers in double quotes.
        streams: tables of the statement, by name.

    Raises:
        OutOfMemory: also where the result is read.
        Exception: the error of a stream of Python, as it was raised.
    """
    errors: list[Exception] = []
    with _raise_noted(errors), _connection() as connection:
        for name, stream in streams.items():
            connection.register(name, stream if isinstance(stream, pa.Table) else _note(stream, errors))
        yield connection.sql(statement).to_arrow_reader(BATCH_ROWS)


def _note(stream: pa.RecordBatchReader, errors: list[Exception]) -> pa.RecordBatchReader:
    """Return the same rows, and note their error, of which Arrow's C interface passes on the text alone."""

    def batches() -> Iterator[pa.RecordBatch]:
        try:
            yield from stream
        except Exception as error:
            errors.append(error)
            raise

    return pa.RecordBatchReader.from_batches(stream.schema, batches())


@contextmanager
def _raise_noted(errors: list[Exception]) -> Iterator[None]:
    """Raise the error of a stream in place of what its readers make of it."""
    try:
        yield
    except Exception as error:
        if errors and error is not errors[0]:
            raise errors[0] from error
        raise


# Databases that no statement uses, by process: to start one takes as long as a small statement. A fork starts
# its own.
_idle: dict[int, list[duckdb.DuckDBPyConnection]] = {}


@contextmanager
def _connection() -> Iterator[duckdb.DuckDBPyConnection]:
    """Connect to an empty database that nothing else uses meanwhile."""
    idle = _idle.setdefault(os.getpid(), [])
    database = idle.pop() if idle else _start_database()
    database.execute(f"SET memory_limit = {literal(memory_limit())}")
    connection = database.cursor()
    try:
        with typed_errors():
            yield connection
    finally:
        connection.close()
    # A limit below its cached memory makes a database free that. It is not used again after an error, or
    # while an unfinished result still occupies some.
    with suppress(duckdb.OutOfMemoryException):
        database.execute("SET memory_limit = '1MB'")
        idle.append(database)


def _start_database() -> duckdb.DuckDBPyConnection:
    spill = tempfile.mkdtemp(prefix="mm-sql-")
    # Not `atexit`, which children of multiprocessing (Dagster's run workers) skip.
    Finalize(None, shutil.rmtree, (spill, True), exitpriority=10)
    # To preserve the order of insertion would keep rows in memory that could spill.
    return duckdb.connect(config={"temp_directory": spill, "threads": 2, "preserve_insertion_order": False})


def fetch(statement: str, **streams: pa.RecordBatchReader | pa.Table) -> pa.Table:
    """Return the whole result of a `query`; for small results."""
    with query(statement, **streams) as reader:
        return reader.read_all()


def relation(rows: pa.Table, connection: duckdb.DuckDBPyConnection | None = None) -> duckdb.DuckDBPyRelation:
    """Return rows in memory as a relation, of a connection or of DuckDB's own of the process."""
    return connection.from_arrow(rows) if connection is not None else duckdb.from_arrow(rows)


def save(statement: str, path: Path, **streams: pa.RecordBatchReader | pa.Table) -> Path:
    """Write the result of a `query` to a Parquet file, which later statements name by `parquet_table`."""
    with (
        query(statement, **streams) as reader,
        pq.ParquetWriter(path, reader.schema, compression="lz4") as sink,
    ):
        for batch in reader:
            sink.write_batch(batch)
    return path


def parquet_table(path: Path) -> str:
    """Return a Parquet file as a table expression of SQL."""
    return f"read_parquet({literal(str(path))})"


def number_rows(read: CellReader) -> CellReader:
    """Return a reader that adds row numbers as ``n``, int32, from 0; a row has one number in all streams."""

    def read_numbered(columns: list[str]) -> pa.RecordBatchReader:
        rows = read(columns)

        def batches() -> Iterator[pa.RecordBatch]:
            count = 0
            for batch in rows:
                numbers = pa.array(np.arange(count, count + batch.num_rows, dtype=np.int32))
                yield pa.record_batch([*batch.columns, numbers], schema=schema)
                count += batch.num_rows

        schema = rows.schema.append(pa.field("n", pa.int32()))
        return pa.RecordBatchReader.from_batches(schema, batches())

    return read_numbered


def rank_rows(read: CellReader, *keys: str) -> CellReader:
    """Return a reader that adds the rows' places in the order of `keys` as ``n``, int32, from 0.

    The numbers are those of the same rows in any order: a result that depends on them does not depend on the
    order in which a table stores its rows.

    Args:
        read: streams chosen columns of the rows, each time in the same order.
        keys: columns of texts without nulls, unique together.
    """
    ranks: pa.Array | None = None

    def read_ranked(columns: list[str]) -> pa.RecordBatchReader:
        nonlocal ranks
        if ranks is None:
            order = pc.sort_indices(read(list(keys)).read_all(), [(key, "ascending") for key in keys])
            places = np.empty(len(order), np.int32)
            places[order.to_numpy()] = np.arange(len(order), dtype=np.int32)
            ranks = pa.array(places)
        rows, found = read(columns), ranks

        def batches() -> Iterator[pa.RecordBatch]:
            count = 0
            for batch in rows:
                own = found.slice(count, batch.num_rows)
                yield pa.record_batch([*batch.columns, own], schema=schema)
                count += batch.num_rows

        schema = rows.schema.append(pa.field("n", pa.int32()))
        return pa.RecordBatchReader.from_batches(schema, batches())

    return read_ranked


def append_columns(tables: Iterable[pa.Table], more: pa.RecordBatchReader) -> Iterator[pa.Table]:
    """Append the columns of a second stream of the same rows in the same order; batches may differ.

    A sort or a join of the narrow stream then need not carry the wide one.

    Raises:
        ValueError: when the streams have different numbers of rows.
    """
    pending = more.schema.empty_table()
    for table in tables:
        while pending.num_rows < table.num_rows:
            try:
                pending = pa.concat_tables([pending, pa.Table.from_batches([more.read_next_batch()])])
            except StopIteration:
                raise ValueError("the second stream ends before the first") from None
        for name in pending.column_names:
            table = table.append_column(name, pending[name].slice(0, table.num_rows))
        pending = pending.slice(table.num_rows)
        yield table
    if pending.num_rows or any(batch.num_rows for batch in more):
        raise ValueError("the first stream ends before the second")


def literal(text: str) -> str:
    """Return a text as a literal of SQL."""
    return "'" + text.replace("'", "''") + "'"


def literals(texts: Iterable[str]) -> str:
    """Return texts as a list of literals of SQL, for ``IN (...)``; "" for none."""
    return ", ".join(map(literal, texts))


def timestamp_literal(at: datetime) -> str:
    """Return a time as a literal of SQL, in UTC."""
    return f"timestamp '{at.astimezone(UTC):%Y-%m-%d %H:%M:%S.%f}'"


class RowDigest:
    """Order-independent digest over some columns of a stream of batches.

    Each row's columns are hashed as JSON (md5) and the hashes are XORed, so that two tables with the same
    rows in another order, or cut into other batches, have the same digest. Rows must be unique, as keys
    guarantee.

    Args:
        columns: those that a batch lacks are left out.
        stand_ins: column -> column that is hashed in its place where it has a value.
    """

    def __init__(self, columns: tuple[str, ...], stand_ins: Iterable[tuple[str, str]] = ()) -> None:
        self.columns, self.stand_ins = columns, dict(stand_ins)
        self.rows = 0
        self._state = 0

    @staticmethod
    def resume(
        hexdigest: str, columns: tuple[str, ...], stand_ins: Iterable[tuple[str, str]] = ()
    ) -> RowDigest:
        """Return a digest over the rows that another one has covered, as its `hexdigest` gives it."""
        digest = RowDigest(columns, stand_ins)
        digest.rows, digest._state = (int(part, 16) for part in hexdigest.split("-"))
        return digest

    def update(self, batch: pa.Table) -> None:
        """Add the rows of a batch."""
        self.rows += batch.num_rows
        self._state ^= self._hash(batch)

    def remove(self, batch: pa.Table) -> None:
        """Take away rows that were added."""
        self.rows -= batch.num_rows
        self._state ^= self._hash(batch)

    def _hash(self, batch: pa.Table) -> int:
        if batch.num_rows == 0:
            return 0
        chosen = [name for name in self.columns if name in batch.column_names]
        found = {name: other for name, other in self.stand_ins.items() if other in batch.column_names}
        packed = ", ".join(
            f'"{name}" := coalesce("{found[name]}", "{name}")' if name in found else f'"{name}" := "{name}"'
            for name in chosen
        )
        statement = f"SELECT bit_xor(md5_number(to_json(struct_pack({packed}))::VARCHAR)) AS hash FROM batch"
        with _connection() as connection:
            connection.register("batch", batch.select(sorted({*chosen, *found.values()})))
            return int(connection.execute(statement).fetchall()[0][0])

    def hexdigest(self) -> str:
        """Return the number of rows and the digest, hex."""
        return f"{self.rows:x}-{self._state:032x}"
