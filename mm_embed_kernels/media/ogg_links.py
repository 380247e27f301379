"""Links of a chained Ogg file (RFC 3533): recordings one after another, each with headers of its own.

FFmpeg sets its clock back at each link, and keeps the coding of the first one.
"""

from __future__ import annotations

import io
import re
from typing import Any, BinaryIO, cast

from mm_embed_kernels.media.sound_data import peek

# A page that begins a logical stream has one packet, which names the coding.
_BEGINNING = re.compile(
    rb"OggS\0[\x02\x06].{20}\x01.(?:\x01vorbis|OpusHead|\x7fFLAC|Speex   |fLaC|CELT    |PCM     |fishead\0"
    rb"|\x80theora|BBCD\0|OVP80|\x01video\0|\x80kate|CMML)",
    re.DOTALL,
)
_HEAD_BYTES, _CHUNK = 27 + 1 + 8, 1 << 20


def find_links(stream: BinaryIO) -> list[tuple[int, int]]:
    """Return the offsets of the beginning and end of each link of an Ogg file; none where none is known.

    The stream keeps its position.
    """
    with peek(stream) as size:
        if stream.read(4) != b"OggS":
            return []
        starts: list[int] = []
        behind = 0  # the streams of one link begin on pages that follow each other
        for offset, length in _beginnings(stream):
            if offset != behind or not starts:
                starts.append(offset)
            behind = offset + length
    if not starts:
        return []
    starts[0] = 0
    return list(zip(starts, [*starts[1:], size], strict=True))


def _beginnings(stream: BinaryIO) -> Any:
    """Stream the offset and length of each page that begins a logical stream."""
    stream.seek(0)
    read, rest = 0, b""
    while chunk := stream.read(_CHUNK):
        data = rest + chunk
        for match in _BEGINNING.finditer(data):
            # One lacing value: the length of the packet.
            yield read - len(rest) + match.start(), 28 + data[match.start() + 27]
        read += len(chunk)
        # A head on the border of two chunks is not whole in either.
        rest = data[-_HEAD_BYTES + 1 :]


class Part(io.RawIOBase):
    """A part of a seekable stream, as a stream of its own; the caller closes the original."""

    def __init__(self, stream: BinaryIO, start: int, end: int) -> None:
        self._stream, self._start, self._size, self._position = stream, start, end - start, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = max(0, base + offset)
        return self._position

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        self._stream.seek(self._start + self._position)
        read = self._stream.read(max(0, min(len(view), self._size - self._position)))
        view[: len(read)] = read
        self._position += len(read)
        return len(read)


def open_part(stream: BinaryIO, start: int, end: int) -> BinaryIO:
    """Return the bytes of a seekable stream between two offsets, as a stream."""
    return cast(BinaryIO, Part(stream, start, end))
