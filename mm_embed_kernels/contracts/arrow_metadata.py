"""Metadata of Arrow messages (flatbuffers, Message.fbs): the places of fields, without unpacking a body."""

from __future__ import annotations

import struct

# Slots of tables: header of a message; batch of a dictionary; buffers and compression of a batch.
HEADER, DATA, BUFFERS, COMPRESSION = 2, 1, 2, 3


def root_table(metadata: bytes) -> int:
    """Return the place of the table of a message.

    Raises:
        struct.error: here and below, for metadata that is cut.
    """
    (root,) = struct.unpack_from("<I", metadata, 0)
    return int(root)


def field_place(metadata: bytes, table: int, slot: int) -> int:
    """Return the place of a field of a table; 0 where it is absent."""
    (back,) = struct.unpack_from("<i", metadata, table)
    (size,) = struct.unpack_from("<H", metadata, table - back)
    place = 4 + 2 * slot
    if place + 2 > size:
        return 0
    (offset,) = struct.unpack_from("<H", metadata, table - back + place)
    return int(table + offset) if offset else 0


def referenced_place(metadata: bytes, place: int) -> int:
    """Return the place of the table or vector that a field refers to."""
    (offset,) = struct.unpack_from("<I", metadata, place)
    return int(place + offset)
