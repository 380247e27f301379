"""Tables between processes, as Arrow streams; one from a model's process is not trusted."""

from __future__ import annotations

import struct

import pyarrow as pa

from mm_embed_kernels.contracts.arrow_metadata import (
    COMPRESSION,
    HEADER,
    field_place,
    referenced_place,
    root_table,
)
from mm_embed_kernels.sandbox.answers import BadAnswer


def to_bytes(table: pa.Table) -> bytes:
    """Return a table as an Arrow stream, which does not hold the rows beside a slice."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    stream: bytes = sink.getvalue().to_pybytes()
    return stream


def from_bytes(stream: bytes) -> pa.Table:
    """Return a table of this program's own."""
    with pa.ipc.open_stream(stream) as reader:
        return reader.read_all()


def from_stranger(stream: object, schema: pa.Schema, rows: int) -> pa.Table:
    """Return a table that another process has answered.

    Args:
        stream: of `to_bytes`.
        schema: that it must have.
        rows: that it must have.

    Raises:
        BadAnswer: when it is anything else. Nothing larger than the stream is allocated.
    """
    if not isinstance(stream, bytes):
        raise BadAnswer(f"it is {type(stream).__name__}, not a table")
    try:
        for message in pa.ipc.MessageReader.open_stream(stream):
            if message.type != "schema" and _is_compressed(message.metadata.to_pybytes()):
                raise BadAnswer("its columns are compressed")
        table = from_bytes(stream)
        table.validate(full=True)
    except (pa.ArrowException, OSError, struct.error, IndexError) as error:
        raise BadAnswer(f"{type(error).__name__}: {error}") from None
    if table.schema != schema or table.num_rows != rows:
        raise BadAnswer(f"it has {table.num_rows:,} rows of another schema, or not {rows:,}")
    return table


def _is_compressed(metadata: bytes) -> bool:
    """Return whether a record batch is compressed: a few bytes could stand for gigabytes."""
    header = field_place(metadata, root_table(metadata), HEADER)
    if not header:
        return True  # no batch of ours
    return field_place(metadata, referenced_place(metadata, header), COMPRESSION) != 0
