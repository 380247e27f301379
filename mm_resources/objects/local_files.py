"""Local files below the folder of their source, opened without following a link that leads out of it.

A file that was listed may be a link by the time it is read, and so may each folder above it. The path is
resolved first; then folder after folder is opened by its name in the one before (openat with O_NOFOLLOW), so
that what has become a link since then is refused instead of followed.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import BinaryIO

from mm_embed_kernels.errors import SampleError

# A folder is opened for its name alone where the system can: it may be searched, but not read.
_FOLDER = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_LINKS = (errno.ELOOP, errno.ENOTDIR, errno.EMLINK)


def printable_path(path: str | bytes) -> str:
    r"""Return a path as UTF-8 text, with bytes that are not UTF-8 as ``\xNN``."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def open_regular_file(path: str | bytes, root: str | None) -> tuple[BinaryIO, int]:
    """Open a regular file and return it with its size.

    Without blocking: a listed file may be a pipe by now, which would block without end.

    Args:
        root: real path of the folder that the file must lie in; None for any.

    Raises:
        OSError: when it cannot be opened.
        SampleError: ``not_a_file``, or ``path_escape`` for a link that leads out of the folder.
    """

    def open_handle(name: str | bytes, flags: int) -> int:
        flags |= os.O_NONBLOCK | os.O_CLOEXEC
        return os.open(name, flags) if root is None else _open_beneath(name, root, flags)

    stream = open(path, "rb", opener=open_handle)  # noqa: SIM115 - the caller closes it
    info = os.fstat(stream.fileno())
    if not stat.S_ISREG(info.st_mode):
        stream.close()
        raise SampleError("not_a_file", f"{printable_path(path)} is a device, socket or pipe")
    return stream, info.st_size


def _open_beneath(path: str | bytes, root: str, flags: int) -> int:
    base, real = os.fsencode(root), os.fsencode(os.path.realpath(path))
    if not real.startswith(base.rstrip(b"/") + b"/"):
        raise _escape_error(path)
    *folders, name = real[len(base.rstrip(b"/")) + 1 :].split(b"/")
    handle = os.open(base, _FOLDER)
    try:
        for folder in folders:
            inner = os.open(folder, _FOLDER, dir_fd=handle)
            os.close(handle)
            handle = inner
        return os.open(name, flags | os.O_NOFOLLOW, dir_fd=handle)
    except OSError as error:
        if error.errno in _LINKS:
            raise _escape_error(path) from None
        raise OSError(error.errno, error.strerror, printable_path(path)) from None
    finally:
        os.close(handle)


def _escape_error(path: str | bytes) -> SampleError:
    return SampleError(
        "path_escape", f"{printable_path(path)} is a link that leads outside its source; it is not followed"
    )
