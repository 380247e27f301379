"""A file that a child was handed as an open descriptor, since it may open none by name."""

from __future__ import annotations

import io
import os
import weakref
from pathlib import Path
from typing import Any

from mm_embed_kernels.errors import SampleError


class HeldFile(type(Path())):  # type: ignore[misc]
    """The path of a file, which is read through a descriptor; each stream has a position of its own."""

    _descriptor: int

    @classmethod
    def from_descriptor(cls, name: str, descriptor: int) -> HeldFile:
        """Return the path `name`, whose file is open as `descriptor`, which is closed with the object."""
        file: HeldFile = cls(name)
        file._descriptor = descriptor
        weakref.finalize(file, os.close, descriptor)
        return file

    def fileno(self) -> int:
        """Return the descriptor; readers of this path do not move its position."""
        return self._descriptor

    def open(self, mode: str = "r", *args: Any, **options: Any) -> Any:  # noqa: ARG002 - of the base class
        if mode != "rb":
            raise PermissionError(f"{self} is open for reading bytes, not as {mode!r}")
        return io.BufferedReader(_Reader(self))

    def stat(self, **options: Any) -> os.stat_result:  # noqa: ARG002 - of the base class
        return os.fstat(self._descriptor)

    def exists(self, **options: Any) -> bool:  # noqa: ARG002
        return True


class UnopenedFile(type(Path())):  # type: ignore[misc]
    """The path of a file that the parent could not open for this process."""

    _cause: str

    @classmethod
    def from_cause(cls, name: str, cause: str) -> UnopenedFile:
        """Return the path `name`, which was not opened because of `cause`."""
        file: UnopenedFile = cls(name)
        file._cause = cause
        return file

    def open(self, *args: Any, **options: Any) -> Any:  # noqa: ARG002 - of the base class
        raise SampleError("store_error", f"{self} cannot be opened: {self._cause}", retryable=True)


class _Reader(io.RawIOBase):
    """Reads a held file from a position of its own."""

    def __init__(self, file: HeldFile) -> None:
        self._file, self._position = file, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count = os.preadv(self._file.fileno(), [buffer], self._position)
        self._position += count
        return count

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        origin = (0, self._position, self._file.stat().st_size)[whence]
        if origin + offset < 0:
            raise ValueError(f"negative seek position {origin + offset}")
        self._position = origin + offset
        return self._position
