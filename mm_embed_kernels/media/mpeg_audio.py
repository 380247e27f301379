"""MPEG audio (MP3): the first frame behind tags and zeros, and whether it states the number of frames."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from typing import BinaryIO

from mm_embed_kernels.media.sound_data import peek

# Bytes that are searched for the first frame behind tags: encoders and cutters leave zeros there.
_SEARCHED_BYTES = 1 << 20
_MAX_TAGS = 16
# Frames behind each other that are none by chance.
_FRAMES_IN_A_ROW = 4
# Bit rates in kbit/s by index (ISO 11172-3, 13818-3): version 1 layers 1 to 3, later ones layer 1, 2 and 3.
_RATES = {
    (1, 1): (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (1, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (1, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (2, 1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (2, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (2, 3): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_HERTZ = (44_100, 48_000, 32_000)


def begins_with_frames(stream: BinaryIO) -> bool:
    """Return whether two frames of MPEG audio follow upon tags and zeros; the stream keeps its position."""
    with peek(stream):
        stream.seek(end_of_tags(stream))
        head = stream.read(4)
        length = frame_length(head)
        stream.seek(max(0, length - 4), io.SEEK_CUR)
        return length > 0 and frame_length(stream.read(4)) > 0


def type_of_frames(head: bytes) -> str | None:
    """Return the media type of MPEG audio or AAC whose first bytes are the rest of a frame; None for others.

    Recordings of broadcasts begin so, and players skip it. Some frames of one kind follow each other then.
    """
    place = head.find(b"\xff")
    while place >= 0:
        for mime, length_of, told in (("audio/mpeg", frame_length, 0x0C), ("audio/aac", _adts_length, 0xFC)):
            if _row_of_frames(head, place, length_of, told) >= _FRAMES_IN_A_ROW:
                return mime
        place = head.find(b"\xff", place + 1)
    return None


def _row_of_frames(head: bytes, place: int, length_of: Callable[[bytes], int], told: int) -> int:
    """Return how many frames of the same kind follow each other from a place on.

    Args:
        told: bits of the third byte that all frames of a stream share.
    """
    first, count = head[place : place + 4], 0
    while length := length_of(head[place : place + 6]):
        if (head[place + 1], head[place + 2] & told) != (first[1], first[2] & told):
            break
        count, place = count + 1, place + length
    return count


def _adts_length(head: bytes) -> int:
    """Return the bytes of the frame of AAC with this head of six bytes (ISO 13818-7, 6.2); 0 for no head."""
    if len(head) < 6 or head[0] != 0xFF or head[1] & 0xF6 != 0xF0 or (head[2] >> 2) & 15 > 12:
        return 0
    length = (head[3] & 3) << 11 | head[4] << 3 | head[5] >> 5
    return length if length > 7 else 0


def stated_seconds(stream: BinaryIO) -> float | None:
    """Return the seconds by the number of frames that the first one states (Xing, LAME's Info or VBRI).

    None where it states none. The stream keeps its position.
    """
    with peek(stream):
        stream.seek(end_of_tags(stream))
        data = stream.read(4_096)
        mark = re.search(rb"(Xing|Info)...[\x01\x03\x05\x07\x09\x0b\x0d\x0f]|VBRI", data, re.DOTALL)
        if mark is None or not frame_length(data[:4]):
            return None
        place = mark.start() + (14 if mark[0] == b"VBRI" else 8)
        return int.from_bytes(data[place : place + 4], "big") * _frame_seconds(data[:4])


def frame_length(head: bytes) -> int:
    """Return the bytes of the frame with this head of four bytes; 0 for what is no head of a frame."""
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE0 != 0xE0:
        return 0
    version, layer = (head[1] >> 3) & 3, 4 - ((head[1] >> 1) & 3)
    rate, hertz, padding = head[2] >> 4, (head[2] >> 2) & 3, (head[2] >> 1) & 1
    if version == 1 or layer == 4 or rate in (0, 15) or hertz == 3:
        return 0
    bits = _RATES[1 if version == 3 else 2, layer][rate - 1] * 1_000
    sample_rate = _sample_rate(head)
    if layer == 1:
        return 4 * (12 * bits // sample_rate + padding)
    return (72 if layer == 3 and version != 3 else 144) * bits // sample_rate + padding


def _frame_seconds(head: bytes) -> float:
    """Return the seconds of a frame with this head."""
    version, layer = (head[1] >> 3) & 3, 4 - ((head[1] >> 1) & 3)
    samples = 384 if layer == 1 else 576 if layer == 3 and version != 3 else 1_152
    return samples / _sample_rate(head)


def _sample_rate(head: bytes) -> int:
    """Return the samples per second of a frame with this head."""
    return _HERTZ[(head[2] >> 2) & 3] // {3: 1, 2: 2, 0: 4}[(head[1] >> 3) & 3]


def end_of_tags(stream: BinaryIO) -> int:
    """Return the offset behind the ID3 tags, APE tags and zeros at the beginning, in any order."""
    offset = 0
    for _ in range(_MAX_TAGS):
        stream.seek(offset)
        head = stream.read(32)
        if head[:3] == b"ID3" and len(head) >= 10:
            # The length is written in four bytes of seven bits; a footer repeats the head.
            length = sum(
                (byte & 0x7F) << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=True)
            )
            offset += 10 + length + (10 if head[5] & 0x10 else 0)
        elif head[:8] == b"APETAGEX" and len(head) == 32:
            offset += 32 + int.from_bytes(head[12:16], "little")
        elif head[:1] == b"\0":
            rest = head + stream.read(_SEARCHED_BYTES)
            offset += len(rest) - len(rest.lstrip(b"\0"))
        else:
            break
    return offset
