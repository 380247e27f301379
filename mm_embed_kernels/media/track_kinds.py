"""Kinds of the tracks in a container of either kind, by its first bytes: pictures, sound or both."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from mm_embed_kernels.media.iso_boxes import boxes

# What a container holds: letters as in Matroska's names of codings.
Kinds = frozenset[str]
PICTURES, SOUND = "V", "A"

# Element CodecID (RFC 9559); its length has one byte, or the eight that some writers give every length.
_MATROSKA_CODEC = re.compile(rb"\x86(?:[\x81-\xbf]|\x01\0{6}.)([VA])_[A-Z]", re.DOTALL)
_AVI_TRACK = re.compile(rb"strh.{4}(vids|auds|iavs)", re.DOTALL)
# Stream properties with the type of the stream (Microsoft's ASF specification, 3.3); the coding of pictures
# stands behind a size, a flag and the head of a bitmap.
_ASF_TRACK = re.compile(
    bytes.fromhex("9107dcb7b7a9cf118ee600c00c205365") + rb".{8}(.{16})(?=.{46}(.{0,31}))", re.DOTALL
)
_ASF_PICTURES = bytes.fromhex("c0ef19bc4d5bcf11a8fd00805f5c442b")
_ASF_SOUND = bytes.fromhex("409e69f84d5bcf11a8fd00805f5c442b")
# Real's media properties hold the length and the text of a MIME type.
_REAL_TRACK = re.compile(rb"(audio|video)/x-pn-(?:multirate-)?real(?:audio|video)")
# A stream's head in NUT: its length, its number, and its class (0 for pictures, 1 for sound).
_NUT_TRACK = re.compile(rb"NS\x11\x40\x5b\xf2\xf9\xdb(?:[\x80-\xff]*[\0-\x7f]){2}([\0\x01])", re.DOTALL)
# Descriptors of pictures and sound in MXF (SMPTE ST 377-1, ST 381).
_MXF_TRACK = re.compile(
    rb"\x06\x0e\x2b\x34\x02\x53\x01.\x0d\x01\x01\x01\x01\x01([\x27\x28\x29\x51\x5a\x42\x47\x48])\0", re.DOTALL
)
# Start codes of packets in program streams (ISO 13818-1, table 2-22); private ones hold AC-3, DTS or PCM.
_PS_PACKET = re.compile(rb"\0\0\x01([\xbd\xc0-\xdf\xe0-\xef\xfd])")
_TS_SIZES = ((188, 0), (192, 4), (204, 0))
# Types of streams (ISO 13818-1, table 2-34; ATSC A/53; Blu-ray).
_TS_PICTURES = frozenset(b"\x01\x02\x10\x1b\x1e\x1f\x20\x21\x24\x25\x33\x35\x42\xd1\xea")
_TS_SOUND = frozenset(b"\x03\x04\x0f\x11\x1c\x80\x81\x82\x83\x84\x85\x86\x87\xa1\xa2")
_TS_PRIVATE = 6
# Descriptors of AC-3, enhanced AC-3, DTS and AAC (EN 300 468), or the names of codings (SMPTE RA).
_TS_DESCRIPTORS, _TS_NAMES = frozenset(b"\x6a\x7a\x7b\x7c"), re.compile(rb"Opus|AC-3|EAC3|DTS[123]|AC-4|BSSD")


def kinds_of(mime: str, head: bytes) -> Kinds:
    """Return the kinds of the tracks of a container; none where its first bytes do not tell.

    Args:
        mime: media type by `sniff`.
        head: the first bytes, a megabyte or all.
    """
    reader = _READERS.get(mime)
    return reader(head) if reader else frozenset()


def iso_kinds(table: bytes) -> Kinds:
    """Return the kinds of the tracks in a `moov` box (ISO/IEC 14496-12).

    Pictures of chapters, to which another track refers, accompany sound as a cover does.
    """
    tracks = [content for name, content in boxes(table) if name == b"trak"]
    numbers, kinds, chapters = [], [], set()
    for track in tracks:
        parts = dict(boxes(track))
        head = parts.get(b"tkhd", b"")
        place = 20 if head[:1] == b"\x01" else 12
        numbers.append(head[place : place + 4])
        handler = dict(boxes(parts.get(b"mdia", b""))).get(b"hdlr", b"")[8:12]
        kinds.append({b"vide": PICTURES, b"soun": SOUND}.get(handler))
        chapters |= set(_chunks(dict(boxes(parts.get(b"tref", b""))).get(b"chap", b""), 4))
    return frozenset(
        kind
        for number, kind in zip(numbers, kinds, strict=True)
        if kind == SOUND or (kind and number not in chapters)
    )


def _matroska(head: bytes) -> Kinds:
    return frozenset(item.decode() for item in _MATROSKA_CODEC.findall(head))


def _avi(head: bytes) -> Kinds:
    return frozenset(SOUND if item == b"auds" else PICTURES for item in _AVI_TRACK.findall(head))


def _asf(head: bytes) -> Kinds:
    kinds = set()
    for kind, coding in _ASF_TRACK.findall(head):
        if kind == _ASF_SOUND:
            kinds.add(SOUND)
        elif kind == _ASF_PICTURES and not any(name in coding.upper() for name in (b"PNG", b"JPEG")):
            kinds.add(PICTURES)
    return frozenset(kinds)


def _real(head: bytes) -> Kinds:
    return frozenset(SOUND if item == b"audio" else PICTURES for item in _REAL_TRACK.findall(head))


def _nut(head: bytes) -> Kinds:
    return frozenset(SOUND if item == b"\x01" else PICTURES for item in _NUT_TRACK.findall(head))


def _mxf(head: bytes) -> Kinds:
    return frozenset(SOUND if item[0] in b"\x42\x47\x48" else PICTURES for item in _MXF_TRACK.findall(head))


def _flash(head: bytes) -> Kinds:
    """Return the kinds of the tags: writers of live streams state both kinds in the head."""
    kinds, offset = set(), int.from_bytes(head[5:9], "big") + 4
    while offset + 11 <= len(head):
        kinds.add({8: SOUND, 9: PICTURES}.get(head[offset] & 0x1F, ""))
        offset += 11 + int.from_bytes(head[offset + 1 : offset + 4], "big") + 4
    return frozenset(kinds - {""})


def _program_stream(head: bytes) -> Kinds:
    numbers = {item[0] for item in _PS_PACKET.findall(head)}
    if not head.startswith(b"\0\0\x01\xba") or any(number >> 4 == 0xE for number in numbers):
        return frozenset({PICTURES})
    return frozenset({SOUND} if any(number >> 5 == 6 or number == 0xBD for number in numbers) else ())


def _transport_stream(head: bytes) -> Kinds:
    """Return the kinds by the tables of programs (ISO 13818-1, 2.4.4), or else by the packets' numbers."""
    begins = [(size, at, 3) for size, at in _TS_SIZES] + [(188, at, 5) for at in range(188)]
    size, offset = next(
        (
            (size, at)
            for size, at, count in begins
            if head[at : at + (count - 1) * size + 1 : size] == count * b"G"
        ),
        (0, 0),
    )
    tables, kinds, packets = {0}, set(), set()
    for place in range(offset, len(head) - 187 if size else 0, size or 1):
        number, section = _beginning(head[place : place + 188])
        if section[:3] == b"\0\0\1":
            packets.add({6: SOUND, 7: PICTURES}.get(section[3] >> 5 if section[3] < 0xF0 else 0, ""))
        elif number not in tables or len(section) < 12:
            continue
        elif section[0] == 0 and number == 0:
            tables |= {int.from_bytes(item[2:4], "big") & 0x1FFF for item in _chunks(section[8:-4], 4)}
        elif section[0] == 2:
            kinds |= set(_program(section))
    return frozenset((kinds or packets) - {""})


def _beginning(packet: bytes) -> tuple[int, bytes]:
    """Return the number of a packet's stream, and what begins in it: a section of a table, or a packet."""
    number, field = int.from_bytes(packet[1:3], "big") & 0x1FFF, (packet[3] >> 4) & 3
    if not packet[1] & 0x40 or not field & 1:
        return number, b""
    body = packet[5 + packet[4] :] if field == 3 else packet[4:]
    if body[:3] == b"\0\0\1":
        return number, body if len(body) > 3 else b""
    body = body[1 + body[0] :] if body else b""
    return number, body[: 3 + (int.from_bytes(body[1:3], "big") & 0xFFF)]


def _program(section: bytes) -> Iterator[str]:
    """Stream the kinds of a program's streams."""
    place = 12 + (int.from_bytes(section[10:12], "big") & 0xFFF)
    while place + 5 <= len(section) - 4:
        length = int.from_bytes(section[place + 3 : place + 5], "big") & 0xFFF
        described = section[place + 5 : place + 5 + length]
        if section[place] in _TS_PICTURES:
            yield PICTURES
        elif section[place] in _TS_SOUND or (section[place] == _TS_PRIVATE and _describes_sound(described)):
            yield SOUND
        place += 5 + length


def _describes_sound(descriptors: bytes) -> bool:
    place = 0
    while place + 2 <= len(descriptors):
        if descriptors[place] in _TS_DESCRIPTORS:
            return True
        place += 2 + descriptors[place + 1]
    return _TS_NAMES.search(descriptors) is not None


def _chunks(data: bytes, size: int) -> Iterator[bytes]:
    return (data[place : place + size] for place in range(0, len(data), size))


_READERS: dict[str, Callable[[bytes], Kinds]] = {
    "video/mp2t": _transport_stream,
    "video/mpeg": _program_stream,
    "video/mxf": _mxf,
    "video/webm": _matroska,
    "video/x-flv": _flash,
    "video/x-matroska": _matroska,
    "video/x-ms-wmv": _asf,
    "video/x-msvideo": _avi,
    "video/x-nut": _nut,
    "video/x-pn-realvideo": _real,
}
