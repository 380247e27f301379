"""Byte order marks: text files of UTF-8, UTF-16 and UTF-32 that begin with one."""

from __future__ import annotations

import codecs
import io
from collections.abc import Callable
from functools import partial
from typing import BinaryIO, cast

from mm_embed_kernels.errors import SampleError
from mm_resources.objects.compressed_streams import UnpackedStream

# The mark of UTF-16 in little-endian order begins that of UTF-32.
_ENCODINGS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_BUFFER = 1 << 20


def marked_encoding(head: bytes) -> str:
    """Return the encoding that the first bytes of a text name by a byte order mark; else ``utf-8``."""
    return next((name for mark, name in _ENCODINGS.items() if head.startswith(mark)), "utf-8")


def decode_text(data: bytes) -> str:
    """Decode a text by its byte order mark, which is no part of the result.

    Raises:
        UnicodeDecodeError: when it is not in that encoding; without a mark, UTF-8.
    """
    return data.decode(marked_encoding(data))


def open_utf8(uri: str, open_new: Callable[[], BinaryIO]) -> BinaryIO:
    """Return a seekable stream of a text file: as it is or, where it is UTF-16 or UTF-32, as UTF-8.

    Args:
        open_new: opens the file at its beginning.

    Raises:
        SampleError: ``encoding_unknown``, while reading.
    """
    stream = open_new()
    encoding = marked_encoding(_head(stream))
    if encoding.startswith("utf-8"):
        return stream
    stream.close()
    recoded = UnpackedStream(uri, open_new, partial(_Recoder, uri, encoding))
    return cast(BinaryIO, io.BufferedReader(recoded, _BUFFER))


def _head(stream: BinaryIO) -> bytes:
    if isinstance(stream, io.BufferedReader):
        return stream.peek(4)[:4]  # without seeking back, which would unpack a compressed file twice
    head = stream.read(4)
    stream.seek(0)
    return head


class _Recoder:
    """Reads a text of another encoding as UTF-8."""

    def __init__(self, uri: str, encoding: str, stream: BinaryIO) -> None:
        self._uri, self._encoding, self._stream = uri, encoding, stream
        self._decoder = codecs.getincrementaldecoder(encoding)()
        self._pending, self._is_ended = b"", False

    def read(self, size: int) -> bytes:
        """Read at most `size` bytes, fewer only at the end."""
        while len(self._pending) < size and not self._is_ended:
            part = self._stream.read(size)
            self._is_ended = not part
            try:
                self._pending += self._decoder.decode(part, self._is_ended).encode("utf-8")
            except UnicodeError:
                raise SampleError(
                    "encoding_unknown", f"{self._uri} begins as {self._encoding.upper()}, but is not"
                ) from None
        found, self._pending = self._pending[:size], self._pending[size:]
        return found
