"""Landlock: a process gives up, for good, the files, ports and signals that it does not need (Linux 5.13).

No privilege is needed. See https://docs.kernel.org/userspace-api/landlock.html for the versions of its ABI.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import struct
from collections.abc import Iterable
from pathlib import Path

# Versions of the ABI: with it files cannot be truncated, TCP is refused, signals to others are.
TRUNCATE_ABI, TCP_ABI, DEVICE_ABI, SCOPE_ABI = 3, 4, 5, 6
_REFER_ABI = 2
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # alike on all machines
_VERSION, _PATH_BENEATH = 1, 1
# Rights on files, as bits.
_WRITE_FILE, _READ_FILE, _READ_DIR, _REFER, _TRUNCATE, _DEVICE = (
    1 << 1,
    1 << 2,
    1 << 3,
    1 << 13,
    1 << 14,
    1 << 15,
)
_FIRST_RIGHTS = (1 << 13) - 1
_EXECUTE = 1 << 0
_TCP, _SCOPES = 0b11, 0b11  # bind and connect; abstract sockets and signals
# Rights that a rule about a file, not a folder, may name.
_OF_FILES = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _DEVICE


def abi() -> int:
    """Return the version of the kernel's Landlock; 0 where it has none, or it is switched off."""
    version: int = ctypes.CDLL(None).syscall(_CREATE_RULESET, None, 0, _VERSION)
    return max(0, version)


def restrict(readable: Iterable[Path], writable: Iterable[Path] = ()) -> None:
    """Restrict this thread, and those that it starts, to some files and folders.

    Nothing is executed, no signal leaves the process (from ABI 6 on), no TCP port is bound or connected to
    (from ABI 4 on). Open files stay usable. Paths that do not exist are skipped.

    Args:
        readable: files, and folders with all that is below.
        writable: files and folders that may be read, written and, for devices, controlled.

    Raises:
        OSError: when the kernel refuses.
    """
    if len(os.listdir("/proc/self/task")) > 1:
        raise OSError(errno.EBUSY, "Landlock holds one thread, and this process has started others")
    version = abi()
    rights = _FIRST_RIGHTS
    rights |= _REFER if version >= _REFER_ABI else 0
    rights |= _TRUNCATE if version >= TRUNCATE_ABI else 0
    rights |= _DEVICE if version >= DEVICE_ABI else 0
    ports = _TCP if version >= TCP_ABI else 0
    ruleset = _call(
        _CREATE_RULESET,
        attributes := struct.pack("QQQ", rights, ports, _SCOPES if version >= SCOPE_ABI else 0),
        len(attributes),
        0,
    )
    try:
        for paths, granted in ((readable, _READ_FILE | _READ_DIR), (writable, rights & ~_EXECUTE)):
            for path in paths:
                _allow(ruleset, path, granted & rights)
        _call(_RESTRICT_SELF, ruleset, 0)
    finally:
        os.close(ruleset)


def _allow(ruleset: int, path: Path, granted: int) -> None:
    try:
        opened = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return  # what is not there, or not for this user, needs no rule
    try:
        if not stat.S_ISDIR(os.fstat(opened).st_mode):
            granted &= _OF_FILES
        _call(_ADD_RULE, ruleset, _PATH_BENEATH, struct.pack("=Qi", granted, opened), 0)
    finally:
        os.close(opened)


def _call(number: int, *arguments: object) -> int:
    library = ctypes.CDLL(None, use_errno=True)
    result: int = library.syscall(number, *arguments)
    if result < 0:
        raise OSError(ctypes.get_errno(), f"Landlock: {os.strerror(ctypes.get_errno())}")
    return result
