"""Compressed files as streams that are read forward, with protection against decompression bombs."""

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
# A file that unpacks to more than this, and to so many times its own size, is a bomb: text reaches twenty
# times at most.
BOMB_BYTES, BOMB_RATIO = 1 << 30, 200


def _open_gzip(raw: BinaryIO) -> Any:
    return gzip.GzipFile(fileobj=raw, mode="rb")


def _open_zstd(raw: BinaryIO) -> Any:
    return pa.CompressedInputStream(pa.PythonFile(raw, "r"), "zstd")


_CODECS: dict[str, Callable[[BinaryIO], Any]] = {
    ".gz": _open_gzip,
    ".bz2": bz2.BZ2File,
    ".xz": lzma.LZMAFile,
    ".zst": _open_zstd,
}
_DAMAGE = (OSError, EOFError, zlib.error, lzma.LZMAError, pa.ArrowInvalid)


def uncompressed_name(name: str) -> str:
    """Return a name without the ending of a compression: ``a.jsonl.gz`` -> ``a.jsonl``."""
    stem, dot, ending = name.rpartition(".")
    return stem if f"{dot}{ending}".lower() in _CODECS else name


def open_unpacked(uri: str, open_packed: Callable[[], BinaryIO]) -> BinaryIO:
    """Return a seekable stream of a file's content, unpacked according to its ending.

    Reading forward costs one pass; seeking backward unpacks from the start again.

    Args:
        open_packed: opens the file at its beginning.

    Raises:
        OSError, SampleError: of `open_packed`; and while reading ``truncated``, ``bad_compression`` or
            ``decompression_bomb``.
    """
    ending = uri[len(uncompressed_name(uri)) :].lower()
    if not ending:
        return open_packed()
    return cast(BinaryIO, io.BufferedReader(UnpackedStream(uri, open_packed, _CODECS[ending]), _BUFFER))


class UnpackedStream(io.RawIOBase):
    """A decoded file that is read forward; seeking backward decodes it from the start again."""

    def __init__(
        self, uri: str, open_packed: Callable[[], BinaryIO], codec: Callable[[BinaryIO], Any]
    ) -> None:
        self._uri, self._open_packed, self._codec = uri, open_packed, codec
        self._restart()

    def _restart(self) -> None:
        self._packed = self._open_packed()
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
            self._restart()
        while self._at < target and self.read(min(_BUFFER, target - self._at)):
            pass
        return self._at

    def readinto(self, buffer: Any) -> int:
        try:
            # In small pieces, so that the content before damage is not lost with it.
            part = self._read(min(len(buffer), _PIECE))
        except _DAMAGE as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise  # an error of the operating system or the network, not of the content
            cut = isinstance(error, EOFError)
            raise SampleError(
                "truncated" if cut else "bad_compression", f"{self._uri} cannot be unpacked: {error}"
            ) from None
        buffer[: len(part)] = part
        self._at += len(part)
        if self._at > BOMB_BYTES and self._at > BOMB_RATIO * self._packed.tell():
            raise SampleError(
                "decompression_bomb", f"{self._uri} unpacks to more than {BOMB_RATIO} times its size"
            )
        return len(part)

    def close(self) -> None:
        self._packed.close()
        super().close()
