"""The chunk of samples in WAV, RF64, BW64, Wave64, AIFF, AU and CAF files, and its size by the header.

Programs that write to a pipe, or stop early, leave a size that is zero, all ones or wrong by the length of a
header. Players play what is there, but decoders refuse some of these files and invent hours for others.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO, Literal, cast

Order = Literal["little", "big"]
# Writers that add the length of a header once too often are wrong by 8 to 58 bytes; no sound is missing.
SLIP_BYTES = 64
# Sizes of writers that cannot seek back: all ones or the largest signed integer, some less their header.
_OPEN_RANGES = ((0x7FFF0000, 0x80010000), (0xFFFF0000, 0x100010000), (1 << 47, 1 << 64))
_CHUNK_ID = re.compile(rb"[A-Za-z0-9_ ()\xa9.-]{4}")
_MAX_CHUNKS = 1_000
# Uncompressed codings of AIFF-C (Apple's TN1081): a frame has as many bytes as its samples.
_AIFF_PCM = (b"NONE", b"twos", b"sowt", b"raw ", b"fl32", b"FL32", b"fl64", b"FL64", b"in24", b"in32")


@dataclass(frozen=True)
class SoundData:
    """The chunk of samples.

    Attributes:
        start: offset of its first byte.
        stated: its size in bytes as the header states it.
        present: bytes from `start` to the end of the file.
        size_field: offset, length and byte order of the field that states the size.
        counted: bytes before `start` that this field counts as well.
        repeated: offset and length of a field that states the size in samples, which decoders believe unless
            it is zero.
        frames: offset of AIFF's number of frames, and the bytes of a frame; None in other formats, and where
            it is compressed.
        followed: whether the bytes from `start` on are other chunks up to the exact end of the file.
    """

    start: int
    stated: int
    present: int
    size_field: tuple[int, int, Order]
    counted: int = 0
    repeated: tuple[int, int] | None = None
    frames: tuple[int, int] | None = None
    followed: bool = False

    @property
    def is_open(self) -> bool:
        """True for a header without a size: the sound reaches to the end of the file."""
        if self.stated <= self.present:
            return self.stated == 0 and self.present > 0 and not self.followed
        return any(low <= self.stated + self.counted < high for low, high in _OPEN_RANGES)

    @property
    def is_cut(self) -> bool:
        """True for a file that ends before the sound does."""
        return not self.is_open and self.stated > self.present + SLIP_BYTES

    @property
    def patches(self) -> dict[int, bytes]:
        """Bytes by offset that make the header state what is there; none for a file that is cut."""
        if self.is_cut:
            return {}
        patches: dict[int, bytes] = {}
        size = self.present if self.is_open else min(self.stated, self.present)
        if size != self.stated:
            offset, length, order = self.size_field
            largest = (1 << 8 * length) - 1
            patches[offset] = min(size + self.counted, largest).to_bytes(length, order)
            if self.repeated:
                patches[self.repeated[0]] = bytes(self.repeated[1])
        if self.frames:
            offset, width = self.frames
            patches[offset] = min(size // width, 0xFFFFFFFF).to_bytes(4, "big")
        return patches


@contextmanager
def peek(stream: BinaryIO) -> Iterator[int]:
    """Go to the beginning of a stream and back to its position in the end; yields its size in bytes."""
    offset = stream.tell()
    size = stream.seek(0, io.SEEK_END)
    stream.seek(0)
    yield size
    stream.seek(offset)


def find_sound_data(stream: BinaryIO) -> SoundData | None:
    """Return the chunk of samples; None for other formats, and where there is none. Keeps the position."""
    with peek(stream) as size:
        head = stream.read(16)
        if head[:4] in (b"RIFF", b"RIFX", b"RF64", b"BW64") and head[8:12] == b"WAVE":
            return _find_in_wave(stream, size, "big" if head[:4] == b"RIFX" else "little")
        if head[:4] == b"FORM" and head[8:12] in (b"AIFF", b"AIFC"):
            return _find_in_aiff(stream, size)
        if head[:4] in (b".snd", b"dns."):
            order: Order = "big" if head[:4] == b".snd" else "little"
            start = int.from_bytes(head[4:8], order)
            stated = int.from_bytes(head[8:12], order)
            return SoundData(start, stated, max(0, size - start), (8, 4, order))
        if head.startswith(b"caff\0\x01"):
            return _find_in_caf(stream, size)
        return _find_in_wave64(stream, size) if head.startswith(b"riff\x2e\x91\xcf\x11") else None


def _chunks(stream: BinaryIO, size: int, order: Order) -> Iterator[tuple[bytes, int, int]]:
    """Stream name, offset of the content and stated size of each chunk of a RIFF or IFF file."""
    offset = 12
    for _ in range(_MAX_CHUNKS):
        if offset + 8 > size:
            return
        stream.seek(offset)
        head = stream.read(8)
        length = int.from_bytes(head[4:], order)
        yield head[:4], offset + 8, length
        offset += 8 + length + length % 2


def _find_in_wave(stream: BinaryIO, size: int, order: Order) -> SoundData | None:
    large: int | None = None
    for name, start, length in _chunks(stream, size, order):
        if name == b"ds64":
            large = start + 8  # after the size of the file: size of the data, number of samples (EBU 3306)
        if name != b"data":
            continue
        followed = _is_followed(stream, start, size, order)
        if large is None or length != 0xFFFFFFFF:
            return SoundData(start, length, size - start, (start - 4, 4, order), followed=followed)
        stream.seek(large)
        stated = int.from_bytes(stream.read(8), "little")
        return SoundData(
            start,
            stated,
            size - start,
            (large, 8, "little"),
            repeated=(large + 8, 8),
            followed=followed,
        )
    return None


def _is_followed(stream: BinaryIO, start: int, size: int, order: Order) -> bool:
    """Return whether chunks follow from `start` to the end of the file, where the data have no bytes."""
    offset = start
    while offset + 8 <= size:
        stream.seek(offset)
        head = stream.read(8)
        if not _CHUNK_ID.fullmatch(head[:4]):
            return False
        length = int.from_bytes(head[4:], order)
        offset += 8 + length + length % 2
    return size <= offset <= size + 1


def _find_in_aiff(stream: BinaryIO, size: int) -> SoundData | None:
    frames: tuple[int, int] | None = None
    for name, start, length in _chunks(stream, size, "big"):
        if name == b"COMM":
            stream.seek(start)
            common = stream.read(22)
            width = int.from_bytes(common[:2], "big") * ((int.from_bytes(common[6:8], "big") + 7) // 8)
            frames = (start + 2, width) if width and (length < 22 or common[18:22] in _AIFF_PCM) else None
        if name == b"SSND":
            # Offset and size of blocks precede the samples, and belong to the chunk.
            first = start + 8
            followed = _is_followed(stream, first, size, "big")
            return SoundData(
                first,
                max(0, length - 8),
                max(0, size - first),
                (start - 4, 4, "big"),
                counted=8,
                frames=frames,
                followed=followed,
            )
    return None


def _find_in_caf(stream: BinaryIO, size: int) -> SoundData | None:
    offset = 8
    for _ in range(_MAX_CHUNKS):
        if offset + 12 > size:
            return None
        stream.seek(offset)
        head = stream.read(12)
        length = int.from_bytes(head[4:], "big")
        if head[:4] == b"data":
            return SoundData(offset + 12, length, size - offset - 12, (offset + 4, 8, "big"))
        offset += 12 + length
    return None


def _find_in_wave64(stream: BinaryIO, size: int) -> SoundData | None:
    offset = 40
    for _ in range(_MAX_CHUNKS):
        if offset + 24 > size:
            return None
        stream.seek(offset)
        head = stream.read(24)
        # The size of a chunk counts its head, and the next one begins at a multiple of eight.
        length = int.from_bytes(head[16:], "little")
        if head[:4] == b"data":
            start = offset + 24
            return SoundData(start, max(0, length - 24), size - start, (offset + 16, 8, "little"), counted=24)
        offset += max(24, length + -length % 8)
    return None


class PatchedStream(io.RawIOBase):
    """A stream in which some bytes are replaced; the caller closes the original."""

    def __init__(self, stream: BinaryIO, patches: dict[int, bytes]) -> None:
        """Wrap a seekable stream.

        Args:
            stream: it is read at this object's position.
            patches: bytes by their offset in the stream.
        """
        self._stream, self._patches = stream, patches
        self._stream.seek(0)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._stream.seek(offset, whence)

    def tell(self) -> int:
        return self._stream.tell()

    def readinto(self, buffer: Any) -> int:
        first = self._stream.tell()
        view = memoryview(buffer).cast("B")
        read = self._stream.read(len(view))
        view[: len(read)] = read
        for offset, patch in self._patches.items():
            for place, value in enumerate(patch, offset - first):
                if 0 <= place < len(read):
                    view[place] = value
        return len(read)


def open_with_true_sizes(stream: BinaryIO) -> BinaryIO:
    """Return the stream; where its header does not state the sound that is there, one whose header does.

    The sizes of a file that is cut stay as they are, so that its decoder reports how much is missing.
    """
    data = find_sound_data(stream)
    patches = data.patches if data else {}
    return cast(BinaryIO, PatchedStream(stream, patches)) if patches else stream
