"""Folders for temporary files of child processes, which are killed and remove none themselves."""

from __future__ import annotations

import fcntl
import glob
import os
import shutil
import tempfile

_PREFIX = "mm-scratch-"


class Scratch:
    """A folder of this process, locked while it runs; those whose process was killed are removed first.

    Attributes:
        path: the folder.
    """

    def __init__(self) -> None:
        for left in glob.glob(f"{glob.escape(tempfile.gettempdir())}/{_PREFIX}*"):
            _remove_unlocked(left)
        self.path = tempfile.mkdtemp(prefix=_PREFIX)
        self._lock = os.open(self.path, os.O_RDONLY)
        fcntl.flock(self._lock, fcntl.LOCK_EX)

    def remove(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._lock)


def _remove_unlocked(folder: str) -> None:
    """Remove a folder of this user that no process holds."""
    try:
        opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return  # it is gone meanwhile, or another user's
    try:
        if os.fstat(opened).st_uid == os.geteuid():
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
    except BlockingIOError:
        pass  # its process runs
    finally:
        os.close(opened)
