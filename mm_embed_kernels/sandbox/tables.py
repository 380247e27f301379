"""Tables between processes, as Arrow streams; one from a model's process is not trusted."""

from __future__ import annotations

import struct

import pyarrow as pa

from mm_embed_kernels.sandbox.answers import BadAnswer

# Slots of a flatbuffer's tables (Message.fbs): the header of a message; the compression of a record batch.
_HEADER_SLOT, _COMPRESSION_SLOT = 2, 3


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
    (root,) = struct.unpack_from("<I", metadata, 0)
    header = _slot(metadata, root, _HEADER_SLOT)
    if not header:
        return True  # no batch of ours
    (offset,) = struct.unpack_from("<I", metadata, header)
    return _slot(metadata, header + offset, _COMPRESSION_SLOT) != 0


def _slot(metadata: bytes, table: int, slot: int) -> int:
    """Return the place of a field of a flatbuffer's table; 0 where it is absent."""
    (back,) = struct.unpack_from("<i", metadata, table)
    vtable = table - back
    (size,) = struct.unpack_from("<H", metadata, vtable)
    place = 4 + 2 * slot
    if place + 2 > size:
        return 0
    (offset,) = struct.unpack_from("<H", metadata, vtable + place)
    return table + offset if offset else 0
