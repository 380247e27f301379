"""Modes of the files and folders of store and home: for the user alone, or for a group (``MM_STORE_SHARED``).

Lance and Dagster make files of their own, which only the process's umask reaches; what the store makes itself
has its mode whatever the umask is. A umask that is stricter is respected.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from mm_embed_kernels.errors import UserError

_YES, _NO = ("1", "true", "yes"), ("", "0", "false", "no")
# Of files, folders and in the umask; the second for a group.
_FILES, _FOLDERS, _MASKS = (0o600, 0o660), (0o700, 0o770), (0o077, 0o007)


# The umask of the process before it was restricted.
_own: int | None = None


def is_shared() -> bool:
    """Return whether the store is shared by the members of a group.

    Raises:
        UserError: for a value that is neither yes nor no.
    """
    value = os.environ.get("MM_STORE_SHARED", "").strip().lower()
    if value not in (*_YES, *_NO):
        raise UserError(f"MM_STORE_SHARED {value!r} is neither true nor false")
    return value in _YES


def restrict_umask() -> None:
    """Take the rights of others, and without sharing those of the group, from what this process makes."""
    global _own
    # There is no other way to read it; another thread's file gets no more rights meanwhile.
    before = os.umask(0o077)
    _own = before if _own is None else _own
    os.umask(before | _MASKS[is_shared()])


def share_store() -> None:
    """Give the group the rights that the process's own umask leaves it, here and in child processes."""
    os.environ["MM_STORE_SHARED"] = "true"
    os.umask((_own or 0) | _MASKS[True])


def make_folders(path: str | Path) -> None:
    """Make a folder and those above it that do not exist."""
    folder = Path(path)
    missing = [each for each in (folder, *folder.parents) if not each.is_dir()]
    for each in reversed(missing):
        each.mkdir(mode=_FOLDERS[is_shared()], exist_ok=True)


def create_temporary(folder: str | Path, prefix: str) -> tuple[int, str]:
    """Create a file with a random name in a folder, and return its handle and path."""
    path = os.path.join(folder, f"{prefix}{secrets.token_hex(8)}")
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
    return os.open(path, flags, _FILES[is_shared()]), path
