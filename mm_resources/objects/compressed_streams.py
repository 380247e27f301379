"""Compressed files as streams that go forward, and know a bomb when they unpack one."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zlib
from collections.abc import Callable
from typing import Any, BinaryIO, cast

import pyarrow as pa

from mm_embed_kernels.errors import SampleError

_BUFFER, _PIECE = 1 << 20, 64 << 10
# What unpacks to more than this, and so many times its own size, is made to do so: text comes to twenty times at most.
_BOMB_BYTES, BOMB_RATIO = 1 << 30, 200


def _gzip(raw: BinaryIO) -> Any:
    return gzip.GzipFile(fileobj=raw, mode="rb")


def _zstd(raw: BinaryIO) -> Any:
    return pa.CompressedInputStream(pa.PythonFile(raw, "r"), "zstd")


_CODECS: dict[str, Callable[[BinaryIO], Any]] = {
    ".gz": _gzip,
    ".bz2": bz2.BZ2File,
    ".xz": lzma.LZMAFile,
    ".zst": _zstd,
}
_DAMAGE = (OSError, EOFError, zlib.error, lzma.LZMAError, pa.ArrowInvalid)


def without_compression(name: str) -> str:
    """``a.jsonl.gz`` -> ``a.jsonl``; other names as they are."""
    stem, dot, ending = name.rpartition(".")
    return stem if f"{dot}{ending}".lower() in _CODECS else name


def unpacked(uri: str, opened: Callable[[], BinaryIO]) -> BinaryIO:
    """A seekable stream of a file's content, unpacked if its ending says so.

    Forward it costs one pass; backward it begins anew.

    Args:
        opened: opens the file at its beginning.

    Raises:
        OSError, SampleError: from `opened`; and while it is read ``truncated``, ``bad_compression`` or ``decompression_bomb``.
    """
    ending = uri[len(without_compression(uri)) :].lower()
    if not ending:
        return opened()
    return cast(BinaryIO, io.BufferedReader(_Unpacked(uri, opened, _CODECS[ending]), _BUFFER))


class _Unpacked(io.RawIOBase):
    def __init__(self, uri: str, opened: Callable[[], BinaryIO], codec: Callable[[BinaryIO], Any]) -> None:
        self._uri, self._opened, self._codec, self._at = uri, opened, codec, 0
        self._begin()

    def _begin(self) -> None:
        self._packed = self._opened()
        self._stream, self._at = self._codec(self._packed), 0
        self._read = getattr(self._stream, "read1", self._stream.read)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if whence == io.SEEK_END:
            raise io.UnsupportedOperation("the end of a compressed file is not known before it is read")
        target = offset + (self._at if whence == io.SEEK_CUR else 0)
        if target < self._at:
            self._packed.close()
            self._begin()
        while self._at < target and self.read(min(_BUFFER, target - self._at)):
            pass
        return self._at

    def readinto(self, buffer: Any) -> int:
        try:
            # Little at once: what comes before damage is not lost with it.
            part = self._read(min(len(buffer), _PIECE))
        except _DAMAGE as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise  # the operating system's or a network's, not the content's
            cut = isinstance(error, EOFError)
            raise SampleError(
                "truncated" if cut else "bad_compression", f"{self._uri} cannot be unpacked: {error}"
            ) from None
        buffer[: len(part)] = part
        self._at += len(part)
        if self._at > _BOMB_BYTES and self._at > BOMB_RATIO * self._packed.tell():
            raise SampleError(
                "decompression_bomb", f"{self._uri} unpacks to more than {BOMB_RATIO} times its size"
            )
        return len(part)

    def close(self) -> None:
        self._packed.close()
        super().close()
