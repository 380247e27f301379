"""SQL of users: their own statements over tables, in a locked database, and DuckDB files for other tools."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import duckdb
import pyarrow as pa

from mm_embed_kernels.errors import UserError
from mm_embed_kernels.sql import BATCH_ROWS, memory_limit, typed_errors


def save_database(path: Path, tables: Mapping[str, pa.RecordBatchReader | pa.Table]) -> None:
    """Write streams as the tables of a new DuckDB file, which appears once it is complete.

    Args:
        tables: name -> rows; a vector becomes an array, such as FLOAT[384].

    Raises:
        UserError: where the file exists or cannot be written.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with duckdb.connect(str(part), config={"threads": 2, "memory_limit": memory_limit()}) as connection:
            for name, stream in tables.items():
                connection.register("stream", stream)
                connection.execute(f'CREATE TABLE "{name}" AS SELECT * FROM stream')
                connection.unregister("stream")
        # Unlike a rename, this fails where the file exists.
        os.link(part, path)
    except FileExistsError:
        raise UserError(f"{path} exists; name another file, or remove it") from None
    except (duckdb.IOException, duckdb.OutOfMemoryException, OSError) as error:
        raise UserError(f"{path} cannot be written: {_first_line(error)}") from error
    finally:
        part.unlink(missing_ok=True)
        part.with_name(f"{part.name}.wal").unlink(missing_ok=True)


class BadStatement(UserError):
    """A person's statement that is not one query, or that DuckDB refuses."""


@contextmanager
def query_locked(statement: str, **tables: pa.dataset.Dataset) -> Iterator[pa.RecordBatchReader]:
    """Run a person's query over named tables, in a database that reaches nothing else; stream its result.

    DuckDB reads of a table what the query needs, as often as it does: a stream could be read once only.

    Files, networks, extensions and settings are out of reach; memory and spilling as of `query`.

    Raises:
        BadStatement: for anything but one query.
        OutOfMemory: also where the result is read.
    """
    try:
        parsed = duckdb.extract_statements(statement)
    except duckdb.Error as error:
        raise BadStatement(f"the statement is invalid: {_first_line(error)}") from error
    if len(parsed) != 1 or parsed[0].type != duckdb.StatementType.SELECT:
        raise BadStatement("the statement is not one query; give one that begins with SELECT, WITH or FROM")
    with tempfile.TemporaryDirectory(prefix="mm-sql-") as spill, typed_errors():
        connection = duckdb.connect(
            config={
                "temp_directory": spill,
                "threads": 2,
                "memory_limit": memory_limit(),
                "python_enable_replacements": False,
            }
        )
        try:
            for name, table in tables.items():
                connection.register(name, table)
            connection.execute("SET enable_external_access = false")
            connection.execute("SET lock_configuration = true")
            try:
                yield connection.sql(statement).to_arrow_reader(BATCH_ROWS)
            except (duckdb.OutOfMemoryException, UserError):
                raise
            except duckdb.Error as error:
                raise BadStatement(f"the statement is invalid: {_first_line(error)}") from error
        finally:
            connection.close()


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
