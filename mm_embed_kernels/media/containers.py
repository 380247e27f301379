"""Bytes of media containers: detect files that are cut off."""

from __future__ import annotations

from typing import BinaryIO

from mm_embed_kernels.media.sound_data import SLIP_BYTES, find_sound_data, peek

_ASF = bytes.fromhex("3026b2758e66cf11a6d900aa")

# Boxes with which a file of the ISO or QuickTime family begins.
_ISO_FIRST = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot")


def ends_early(stream: BinaryIO) -> bool:
    """Return whether an ISO, Matroska, RIFF, AIFF, AU, Wave64, CAF, ASF or Ogg file is cut off.

    The stream keeps its position.
    """
    if data := find_sound_data(stream):
        return data.is_cut
    with peek(stream) as size:
        head = stream.read(12)
        if head[4:8] in _ISO_FIRST:
            return _iso_is_short(stream, size)
        if head.startswith(b"\x1a\x45\xdf\xa3"):
            return _matroska_is_short(stream, size)
        if head[:4] == b"RIFF":
            # Writers that cannot seek back leave zero, all ones, or a size that fits any signed integer.
            declared = int.from_bytes(head[4:8], "little")
            slip = SLIP_BYTES if head[8:12] == b"AVI " else 0
            return size + slip < declared + 8 and 0 < declared < 0x7FFFF000
        if head.startswith(_ASF):
            return _asf_is_short(stream, size)
        return head[:4] == b"OggS" and _ogg_is_short(stream, size)


def _ogg_is_short(stream: BinaryIO, size: int) -> bool:
    """Return whether an Ogg file ends inside a page (RFC 3533)."""
    # A page has at most 65,307 bytes, so that the last one begins among the last so many.
    stream.seek(max(0, size - 65_307))
    tail = stream.read()
    offset = tail.rfind(b"OggS")
    page = tail[offset:] if offset >= 0 else b""
    return len(page) < 27 or len(page) < 27 + page[26] + sum(page[27 : 27 + page[26]])


def _asf_is_short(stream: BinaryIO, size: int) -> bool:
    """Return whether an object of an ASF file reaches beyond it; a stream leaves its size open."""
    offset = 0
    while offset < size:
        stream.seek(offset + 16)
        length = int.from_bytes(stream.read(8), "little")
        if length < 24 or length >> 47:
            return False
        offset += length
    return offset > size + SLIP_BYTES


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
