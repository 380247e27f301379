"""Containers of sound and pictures as bytes: whether they are whole, and why FFmpeg cannot read them."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

from mm_embed_kernels.errors import SampleError


def ends_early(stream: BinaryIO) -> bool:
    """Whether an ISO, Matroska, RIFF, Wave64, CAF or Ogg file is shorter than it says; the stream is left where it stood."""
    with aside(stream) as size:
        head = stream.read(12)
        if head[4:8] == b"ftyp":
            return _iso_is_short(stream, size)
        if head.startswith(b"\x1a\x45\xdf\xa3"):
            return _matroska_is_short(stream, size)
        if head[:4] == b"RIFF":
            # Writers that cannot seek back leave zero or all ones, or a size that fits any signed reader.
            declared = int.from_bytes(head[4:8], "little")
            return size < declared + 8 and 0 < declared < 0x7FFFF000
        if head.startswith(b"riff\x2e\x91\xcf\x11"):
            stream.seek(16)
            return size < int.from_bytes(stream.read(8), "little")
        if head.startswith(b"caff\0\x01"):
            return _caf_is_short(stream, size)
        return head[:4] == b"OggS" and _ogg_is_short(stream, size)


@contextmanager
def aside(stream: BinaryIO) -> Iterator[int]:
    """Read elsewhere in a stream, from its beginning, and come back; gives its size."""
    place = stream.tell()
    size = stream.seek(0, io.SEEK_END)
    stream.seek(0)
    yield size
    stream.seek(place)


def _ogg_is_short(stream: BinaryIO, size: int) -> bool:
    """Whether an Ogg file ends inside a page (RFC 3533)."""
    # A page has at most 65,307 bytes: its last beginning is among the last so many.
    stream.seek(max(0, size - 65_307))
    tail = stream.read()
    place = tail.rfind(b"OggS")
    page = tail[place:] if place >= 0 else b""
    return len(page) < 27 or len(page) < 27 + page[26] + sum(page[27 : 27 + page[26]])


def _caf_is_short(stream: BinaryIO, size: int) -> bool:
    """Whether a chunk of a CAF file reaches beyond the file; the last one's size may be left open (-1)."""
    place = 8
    while place < size:
        stream.seek(place + 4)
        length = int.from_bytes(stream.read(8), "big", signed=True)
        if length < 0:
            return False
        place += 12 + length
    return place > size


def _iso_is_short(stream: BinaryIO, size: int) -> bool:
    """Whether a box of an ISO base media file (ISO/IEC 14496-12) reaches beyond the file."""
    place = 0
    while place < size:
        stream.seek(place)
        head = stream.read(16)
        length = int.from_bytes(head[:4], "big")
        if length == 1:
            length = int.from_bytes(head[8:16], "big")
        if length == 0:  # to the end, wherever that is
            return False
        if length < 8:  # damaged; the decoder will say how
            return False
        place += length
    return place > size


def _matroska_is_short(stream: BinaryIO, size: int) -> bool:
    """Whether the segment of a Matroska file (RFC 9559) has a length and reaches beyond the file."""
    stream.seek(0)
    head = stream.read(256)
    place = head.find(b"\x18\x53\x80\x67")
    if place < 0 or place + 12 > len(head):
        return False
    # EBML writes a length's own length as the leading zeros of its first byte; all ones mean "not known".
    first = head[place + 4]
    octets = 9 - first.bit_length() if first else 9
    if octets > 8:
        return False
    bits = 7 * octets
    length = int.from_bytes(head[place + 4 : place + 4 + octets], "big") & ((1 << bits) - 1)
    return length != (1 << bits) - 1 and place + 4 + octets + length > size


def out_of_memory(text: str) -> bool:
    """Whether a library's words mean that it could have no more memory."""
    return re.search(r"cannot allocate|out of memory|bad_alloc|malloc", text, re.IGNORECASE) is not None


def broken(error: Exception, where: str) -> SampleError:
    """A cause in the libraries' own words: cut off, or damaged."""
    # The libraries' own words, without the file's name.
    text = f"{where}: {getattr(error, 'strerror', None) or getattr(error, 'error_string', None) or error}"
    if out_of_memory(text):
        return SampleError("memory_limit", text)
    cut = re.search(r"end of file|moov atom not found|truncated", text, re.IGNORECASE)
    return SampleError("truncated" if cut else "decode_error", text)
