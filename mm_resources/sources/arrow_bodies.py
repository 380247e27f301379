"""Compressed bodies of Arrow files: the stated sizes of their contents, before any is unpacked."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from mm_embed_kernels.contracts.arrow_metadata import (
    BUFFERS,
    COMPRESSION,
    DATA,
    HEADER,
    field_place,
    referenced_place,
    root_table,
)
from mm_embed_kernels.errors import SampleError
from mm_resources.objects.compressed_streams import BOMB_BYTES, BOMB_RATIO

_BUFFER = struct.Struct("<qq")  # offset, length


def require_sound_bodies(stream: Any, uri: str) -> None:
    """Check that no batch of a stream of Arrow messages unpacks to far more than it has bytes.

    Args:
        stream: at its first message; its position afterwards is undefined.

    Raises:
        SampleError: ``decompression_bomb``.
    """
    try:
        for message in pa.ipc.MessageReader.open_stream(stream):
            if message.type in ("record batch", "dictionary") and message.body is not None:
                packed, unpacked = message.body.size, sum(_unpacked_sizes(message))
                if unpacked > max(BOMB_BYTES, BOMB_RATIO * packed):
                    raise SampleError(
                        "decompression_bomb", f"{uri}: a batch of {packed:,} bytes unpacks to {unpacked:,}"
                    )
    except (pa.ArrowException, OSError, EOFError, struct.error):
        return  # the reader itself reads up to the damage, and reports it


def _unpacked_sizes(message: Any) -> Iterator[int]:
    """Yield the stated sizes of the compressed buffers of a message, in bytes."""
    metadata = message.metadata.to_pybytes()
    batch = _table(metadata, root_table(metadata), HEADER)
    if message.type == "dictionary":
        batch = _table(metadata, batch, DATA)
    place = field_place(metadata, batch, BUFFERS)
    if not field_place(metadata, batch, COMPRESSION) or not place:
        return
    buffers = referenced_place(metadata, place)
    (count,) = struct.unpack_from("<I", metadata, buffers)
    for number in range(count):
        start, size = _BUFFER.unpack_from(metadata, buffers + 4 + _BUFFER.size * number)
        if size >= 8 and 0 <= start <= message.body.size - 8:
            (unpacked,) = struct.unpack("<q", message.body.slice(start, 8).to_pybytes())
            yield max(0, unpacked)


def _table(metadata: bytes, table: int, slot: int) -> int:
    return referenced_place(metadata, field_place(metadata, table, slot))
