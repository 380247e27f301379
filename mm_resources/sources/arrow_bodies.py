"""Compressed bodies of Arrow files: what they say that they unpack to, before any is unpacked."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from mm_embed_kernels.errors import SampleError
from mm_resources.objects.compressed_streams import BOMB_BYTES, BOMB_RATIO

# Slots of the flatbuffers' tables (Message.fbs): header of a message; batch of a dictionary; buffers and
# compression of a batch.
_HEADER, _DATA, _BUFFERS, _COMPRESSION = 2, 1, 2, 3
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
    """Yield the bytes that the compressed buffers of a message say that they have."""
    metadata = message.metadata.to_pybytes()
    (root,) = struct.unpack_from("<I", metadata, 0)
    batch = _table(metadata, root, _HEADER)
    if message.type == "dictionary":
        batch = _table(metadata, batch, _DATA)
    place = _slot(metadata, batch, _BUFFERS)
    if not _slot(metadata, batch, _COMPRESSION) or not place:
        return
    (offset,) = struct.unpack_from("<I", metadata, place)
    (count,) = struct.unpack_from("<I", metadata, place + offset)
    for number in range(count):
        start, size = _BUFFER.unpack_from(metadata, place + offset + 4 + _BUFFER.size * number)
        if size >= 8 and 0 <= start <= message.body.size - 8:
            (unpacked,) = struct.unpack("<q", message.body.slice(start, 8).to_pybytes())
            yield max(0, unpacked)


def _table(metadata: bytes, table: int, slot: int) -> int:
    place = _slot(metadata, table, slot)
    (offset,) = struct.unpack_from("<I", metadata, place)
    return int(place + offset)


def _slot(metadata: bytes, table: int, slot: int) -> int:
    """Return the place of a field of a flatbuffer's table; 0 where it is absent."""
    (back,) = struct.unpack_from("<i", metadata, table)
    (size,) = struct.unpack_from("<H", metadata, table - back)
    place = 4 + 2 * slot
    if place + 2 > size:
        return 0
    (offset,) = struct.unpack_from("<H", metadata, table - back + place)
    return table + offset if offset else 0
