"""Bytes of media containers: detect files that are cut off."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO


def ends_early(stream: BinaryIO) -> bool:
    """Return whether an ISO, Matroska, RIFF, Wave64, CAF or Ogg file is shorter than it states.

    The stream keeps its position.
    """
    with peek(stream) as size:
        head = stream.read(12)
        if head[4:8] == b"ftyp":
            return _iso_is_short(stream, size)
        if head.startswith(b"\x1a\x45\xdf\xa3"):
            return _matroska_is_short(stream, size)
        if head[:4] == b"RIFF":
            # Writers that cannot seek back leave zero, all ones, or a size that fits any signed integer.
            declared = int.from_bytes(head[4:8], "little")
            return size < declared + 8 and 0 < declared < 0x7FFFF000
        if head.startswith(b"riff\x2e\x91\xcf\x11"):
            stream.seek(16)
            return size < int.from_bytes(stream.read(8), "little")
        if head.startswith(b"caff\0\x01"):
            return _caf_is_short(stream, size)
        return head[:4] == b"OggS" and _ogg_is_short(stream, size)


@contextmanager
def peek(stream: BinaryIO) -> Iterator[int]:
    """Go to the beginning of a stream and back to its position in the end; yields its size in bytes."""
    offset = stream.tell()
    size = stream.seek(0, io.SEEK_END)
    stream.seek(0)
    yield size
    stream.seek(offset)


def _ogg_is_short(stream: BinaryIO, size: int) -> bool:
    """Return whether an Ogg file ends inside a page (RFC 3533)."""
    # A page has at most 65,307 bytes, so that the last one begins among the last so many.
    stream.seek(max(0, size - 65_307))
    tail = stream.read()
    offset = tail.rfind(b"OggS")
    page = tail[offset:] if offset >= 0 else b""
    return len(page) < 27 or len(page) < 27 + page[26] + sum(page[27 : 27 + page[26]])


def _caf_is_short(stream: BinaryIO, size: int) -> bool:
    """Return whether a chunk of a CAF file reaches beyond the file; the last one's size may be open (-1)."""
    offset = 8
    while offset < size:
        stream.seek(offset + 4)
        length = int.from_bytes(stream.read(8), "big", signed=True)
        if length < 0:
            return False
        offset += 12 + length
    return offset > size


def _iso_is_short(stream: BinaryIO, size: int) -> bool:
    """Return whether a box of an ISO base media file (ISO/IEC 14496-12) reaches beyond the file."""
    offset = 0
    while offset < size:
        stream.seek(offset)
        head = stream.read(16)
        length = int.from_bytes(head[:4], "big")
        if length == 1:
            length = int.from_bytes(head[8:16], "big")
        if length == 0:  # up to the end of the file
            return False
        if length < 8:  # damaged, which the decoder reports
            return False
        offset += length
    return offset > size


def _matroska_is_short(stream: BinaryIO, size: int) -> bool:
    """Return whether the segment of a Matroska file (RFC 9559) has a length and reaches beyond the file."""
    stream.seek(0)
    head = stream.read(256)
    offset = head.find(b"\x18\x53\x80\x67")
    if offset < 0 or offset + 12 > len(head):
        return False
    # EBML writes the size of a length as the leading zeros of its first byte; all ones mean "unknown".
    first = head[offset + 4]
    octets = 9 - first.bit_length() if first else 9
    if octets > 8:
        return False
    bits = 7 * octets
    length = int.from_bytes(head[offset + 4 : offset + 4 + octets], "big") & ((1 << bits) - 1)
    return length != (1 << bits) - 1 and offset + 4 + octets + length > size
