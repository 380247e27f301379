"""Confinement of child processes: what a decoder, or a model, keeps of the machine.

A process gives up what it does not need, before it sees a stranger's first byte, and cannot get it back. The
layers that kernels differ in have names (`LAYERS`), so that a deployment can ask for them.
"""

from __future__ import annotations

import contextlib
import ctypes
import io
import os
import platform
import resource
import signal
import struct
import tempfile
from collections.abc import Collection, Iterable
from functools import cache
from pathlib import Path
from typing import IO, Any

from mm_embed_kernels.errors import UserError, unknown_choice
from mm_embed_kernels.sandbox import landlock, seccomp

# Layers that `sandbox.require` may name.
LAYERS = ("landlock", "seccomp")
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE = 1, 4
_CAPSET = {"x86_64": 126, "aarch64": 91}
_CAPABILITY_VERSION = 0x20080522
# Tasks that a user may have beyond twice those of now: threads of decoders, and of what starts meanwhile.
_MORE_TASKS = 1024
# Open files of a decoder: one for each item of a message, and pipes, whose content no limit on memory counts.
_MOST_FILES = 4096
# Layers that a resource of this process requires.
_recorded: dict[str, None] = {}


@cache
def missing_layers() -> dict[str, str]:
    """Return the layers that this kernel does not offer, each with what a decoder can do for want of it."""
    missing = {}
    if landlock.abi() < 1:
        missing["landlock"] = "a decoder under an attacker's control can read the files of this user"
    if not seccomp.is_offered():
        missing["seccomp"] = "it can open sockets, run programs and signal processes"
    return missing


def describe_layers() -> str:
    """Return what confines the children of this machine, in words."""
    version = landlock.abi()
    words = []
    if version:
        lacks = [
            name
            for name, since in (
                ("truncation", landlock.TRUNCATE_ABI),
                ("TCP", landlock.TCP_ABI),
                ("signals", landlock.SCOPE_ABI),
            )
            if version < since
        ]
        words.append(f"Landlock ABI {version}" + (f" (knows no {', '.join(lacks)})" if lacks else ""))
    if "seccomp" not in missing_layers():
        words.append("seccomp")
    words += [f"NOT by {name}: {effect}" for name, effect in missing_layers().items()]
    return "children are confined by limits, " + ", ".join(words)


def required_layers(named: str | None = None) -> tuple[str, ...]:
    """Return the layers without which no work starts.

    Args:
        named: separated by commas; by default the variable ``MM_SANDBOX_REQUIRE``, and what this process has
            recorded.

    Raises:
        UserError: for a layer that does not exist.
    """
    text = os.environ.get("MM_SANDBOX_REQUIRE", "") if named is None else named
    words = [word.strip() for word in text.split(",") if word.strip()]
    layers = tuple(dict.fromkeys(words if named is not None else (*words, *_recorded)))
    for layer in layers:
        if layer not in LAYERS:
            raise unknown_choice("sandbox.require", layer, LAYERS)
    return layers


def record_layers(layers: Collection[str]) -> None:
    """Require some layers of each sandbox that this process opens from now on."""
    _recorded.update(dict.fromkeys(layers))


def require_layers(layers: Collection[str]) -> None:
    """Check that this kernel offers some layers.

    Raises:
        UserError: naming those that it does not.
    """
    if platform.system() != "Linux":
        raise UserError(
            "strangers' files are opened on Linux only; run on a machine, or in a container, of it"
        )
    for layer in layers:
        if layer not in LAYERS:
            raise unknown_choice("sandbox.require", layer, LAYERS)
    if lacking := [layer for layer in layers if layer in missing_layers()]:
        raise UserError(
            f"sandbox.require names {', '.join(lacking)}, which this kernel ({os.uname().release}) does not "
            "offer; run on one that does (Landlock: Linux 5.13, not gVisor), or remove the name and run "
            "strangers' media on a machine without secrets"
        )


def hide_memory() -> None:
    """Close the memory and the environment of this process to the other processes of its user.

    A process that is not dumpable writes no core file, and no debugger attaches to it without privileges.
    """
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def die_with_parent() -> None:
    """End this process with its parent, and leave Ctrl-C to the parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def confine_decoder(readable: Iterable[Path], file_bytes: int) -> None:
    """Leave this process its memory, its code and its open descriptors, for good.

    Args:
        readable: its code.
        file_bytes: most bytes of a file that it was handed open for writing.
    """
    _give_up_privileges()
    _keep_temporary_files_in_memory()
    resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, file_bytes))
    _limit_files()
    # The kernel counts the tasks of a user over all containers, and /proc shows those of one: the limit is
    # for machines without the filter, which refuses new processes. Root has no such limit.
    if os.geteuid() and not seccomp.is_offered():
        _limit_tasks()
    if landlock.abi():
        landlock.restrict(readable)
    if seccomp.is_offered():
        seccomp.filter_calls(writes=False)


def confine_model(readable: Iterable[Path], writable: Iterable[Path]) -> None:
    """Leave this process its memory, some files, and devices, for good.

    Args:
        readable: its code, its weights, and what its libraries read.
        writable: caches and devices.
    """
    _give_up_privileges()
    if landlock.abi():
        landlock.restrict(readable, writable)
    if seccomp.is_offered():
        seccomp.filter_calls(writes=True)


def close_descriptors(kept: Collection[int]) -> None:
    """Close all open files but standard input and output and some others."""
    first = 3
    for number in sorted({*kept}):
        os.closerange(first, number)
        first = max(first, number + 1)
    os.closerange(first, min(resource.getrlimit(resource.RLIMIT_NOFILE)[0], 1 << 20))


def _give_up_privileges() -> None:
    hide_memory()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    seccomp.forbid_privileges()
    _drop_capabilities()


def _drop_capabilities() -> None:
    """Give up the capabilities of a process of root, such as to read all files, trace and mount."""
    number = _CAPSET.get(os.uname().machine)
    if number is not None:
        header = struct.pack("Ii", _CAPABILITY_VERSION, 0)
        library = ctypes.CDLL(None, use_errno=True)
        if library.syscall(number, header, bytes(24)):
            raise OSError(ctypes.get_errno(), "capset")


def _limit_files() -> None:
    """Limit the open files of this process."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    most = _MOST_FILES if hard == resource.RLIM_INFINITY else min(_MOST_FILES, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _limit_tasks() -> None:
    """Limit the processes and threads of this user: a decoder has a few threads."""
    user, tasks = os.getuid(), 0
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            with contextlib.suppress(OSError):  # it has ended
                if entry.stat().st_uid == user:
                    tasks += len(os.listdir(f"{entry.path}/task"))
    hard = resource.getrlimit(resource.RLIMIT_NPROC)[1]
    most = 2 * tasks + _MORE_TASKS
    most = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(resource.RLIMIT_NPROC, (most, most))


def _keep_temporary_files_in_memory() -> None:
    """Have libraries that take nameless temporary files write to memory, in a process without files."""
    tempfile.TemporaryFile = _memory_file  # type: ignore[assignment]


def _memory_file(mode: str = "w+b", *_: Any, encoding: str | None = None, **__: Any) -> IO[Any]:
    return io.BytesIO() if "b" in mode else io.TextIOWrapper(io.BytesIO(), encoding or "utf-8")
