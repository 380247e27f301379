"""Media types of containers that hold sound or pictures, by their tables of tracks; nothing is decoded."""

from __future__ import annotations

from typing import BinaryIO

from mm_embed_kernels.media.media_type import HEAD_BYTES, Media, open_media, sniff
from mm_embed_kernels.media.mpeg_audio import begins_with_frames, type_of_frames
from mm_embed_kernels.media.track_kinds import SOUND, iso_kinds, kinds_of

_ISO_FAMILY = {"video/mp4", "video/x-m4v", "video/quicktime", "video/3gpp"}
# Names of types for sound alone, where they are not those of pictures with another beginning.
_SOUND_TYPES = {
    "video/mpeg": "audio/x-mpeg-ps",
    "video/x-ms-wmv": "audio/x-ms-wma",
    "video/x-pn-realvideo": "audio/x-pn-realaudio",
}
# Beginnings of MPEG audio without a signature: zeros, tags, and frames of layers 1 and 2.
_MAYBE_FRAMES = (b"\0", b"APETAGEX", b"ID3", b"\xff")
# Containers whose table names all tracks.
_TABLED = ("video/webm", "video/x-matroska", "video/x-msvideo")
# Tables of tracks are at a container's beginning, before any media; the index of samples of a two-hour film
# takes a few MB.
_TABLE_BYTES, _ISO_TABLE_BYTES = 1 << 20, 32 << 20


def media_type(data: Media) -> str:
    """Return the type by `sniff`; ``audio/...`` for a container of either kind without a video track."""
    with open_media(data) as stream:
        return stream_type(stream)


def stream_type(stream: BinaryIO) -> str:
    """Return the `media_type` of a seekable stream at its beginning; its position afterwards is undefined."""
    mime = sniff(head := stream.read(HEAD_BYTES))
    if mime == "application/octet-stream":
        if head.startswith(_MAYBE_FRAMES) and begins_with_frames(stream):
            return "audio/mpeg"
        return type_of_frames(head) or mime
    stream.seek(0)
    if mime in _ISO_FAMILY:
        kinds = iso_kinds(_iso_table(stream))
    else:
        kinds = kinds_of(mime, stream.read(_TABLE_BYTES))
    if kinds != {SOUND}:
        return mime
    sound = "video/mp4" if mime in _ISO_FAMILY else mime
    return _SOUND_TYPES.get(sound, sound.replace("video/", "audio/"))


def has_sound(stream: BinaryIO) -> bool | None:
    """Return whether a video has a sound track, by its container's table; None where there is no such table.

    Args:
        stream: seekable, at its beginning; its position afterwards is undefined.
    """
    mime = sniff(stream.read(HEAD_BYTES))
    stream.seek(0)
    if mime in _ISO_FAMILY:
        return SOUND in iso_kinds(_iso_table(stream))
    if mime in _TABLED:
        return SOUND in kinds_of(mime, stream.read(_TABLE_BYTES))
    return None if mime.startswith("video/") else False


def lacks_table(data: Media, mime: str) -> bool:
    """Return whether a container of either kind ends before its table of tracks."""
    if mime not in _ISO_FAMILY:
        return False
    with open_media(data) as stream:
        return not _iso_table(stream)


def _iso_table(stream: BinaryIO) -> bytes:
    """Return the `moov` box of an ISO base media file (ISO/IEC 14496-12), empty where there is none."""
    while len(head := stream.read(8)) == 8:
        size, kind, read = int.from_bytes(head[:4], "big"), head[4:], 8
        if size == 1:
            size, read = int.from_bytes(stream.read(8), "big"), 16
        if kind == b"moov":
            return stream.read(min(size - read, _ISO_TABLE_BYTES) if size else _ISO_TABLE_BYTES)
        if size < read:  # zero: the box reaches to the end; less: damaged
            break
        stream.seek(size - read, 1)
    return b""
