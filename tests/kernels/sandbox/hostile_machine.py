"""What a decoder that is taken over does to the machine and to other processes of its user."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import signal
import struct
from pathlib import Path

from tests.kernels.sandbox.hostile import call, decode, try_all


def exhaust_machine(modality: str, data: bytes) -> list[str]:
    """Take what the processes of the machine share, or memory that no limit of this process counts."""
    decode(modality, data)
    pipe, held = os.pipe(), os.open(os.__file__, os.O_RDONLY)
    pages = ctypes.create_string_buffer(1 << 16)
    vector = ctypes.create_string_buffer(struct.pack("PN", ctypes.addressof(pages), len(pages)))
    context = ctypes.create_string_buffer(8)
    name = ctypes.create_string_buffer(b"mm-attack")
    try:
        return try_all(
            {
                "pages in a pipe": lambda: call("vmsplice", pipe[1], ctypes.addressof(vector), 1, 0),
                "copies of a pipe": lambda: call("tee", pipe[0], pipe[1], 1, 2),
                "pages of a file": lambda: os.splice(held, pipe[1], 1),
                "pages of a file, sent": lambda: os.sendfile(pipe[1], held, 0, 1),
                "size of a pipe": lambda: fcntl.fcntl(pipe[1], 1031, 1 << 20),
                "asynchronous reads": lambda: call("io_setup", 60_000, ctypes.addressof(context)),
                "semaphores": lambda: call("semget", 0, 1, 0o1600),
                "message queue": lambda: call("msgget", 0, 0o1600),
                "named queue": lambda: call("mq_open", ctypes.addressof(name), 0o102, 0o600, 0),
                "watches": lambda: call("inotify_init1", 0),
                "watches of a disk": lambda: call("fanotify_init", 0, 0),
                "priority of real time": lambda: call("sched_setscheduler", 0, 1, ctypes.addressof(name)),
                "priority at the disk": lambda: call("ioprio_set", 1, 0, 1 << 13),
            }
        )
    finally:
        for number in (*pipe, held):
            os.close(number)


def reach_process(modality: str, data: bytes, pid: int) -> list[str]:
    """Read, end, trace or slow down another process of the same user, such as another child."""
    decode(modality, data)
    information = ctypes.create_string_buffer(128)
    at = ctypes.addressof(information)
    return try_all(
        {
            "memory": lambda: open(f"/proc/{pid}/mem", "r+b").close(),
            "environment": lambda: Path(f"/proc/{pid}/environ").read_bytes(),
            "map of its memory": lambda: Path(f"/proc/{pid}/maps").read_text(),
            "files": lambda: os.listdir(f"/proc/{pid}/fd"),
            "folder": lambda: os.listdir(f"/proc/{pid}/cwd"),
            "killed first": lambda: open(f"/proc/{pid}/oom_score_adj", "w").close(),
            "trace": lambda: call("ptrace", 0x4206, pid, 0, 0),  # PTRACE_SEIZE
            "copy of memory": lambda: call("process_vm_readv", pid, at, 1, at, 1, 0),
            "descriptor": lambda: call("pidfd_open", pid, 0),
            "comparison": lambda: call("kcmp", os.getpid(), pid, 0, 0, 0),
            "end": lambda: os.kill(pid, signal.SIGKILL),
            "end by a queue": lambda: call("rt_sigqueueinfo", pid, signal.SIGKILL, at),
            "end of a thread": lambda: call("tgkill", pid, pid, signal.SIGKILL),
            "pages": lambda: call("migrate_pages", pid, 0, 0, 0),
            "release of memory": lambda: call("process_mrelease", 0, 0),
            "cores": lambda: os.sched_setaffinity(pid, {0}),
            "handle": lambda: call("name_to_handle_at", -100, at, at, at, 0),
            "child that shares memory": lambda: call("clone", 0x100 | 0x4000, 0, 0, 0, 0),
            "newer call": lambda: call("mseal", 0, 0, 0),
        }
    )


def open_most_files() -> int:
    """Open files until no more open; return how many there were."""
    opened = []
    try:
        while True:
            opened.append(os.open("/dev/null", os.O_RDONLY))
    except OSError as error:
        assert error.errno == errno.EMFILE
    for number in opened:
        os.close(number)
    return len(opened)


def raise_limits() -> list[str]:
    """Raise the limits of this process; return those that rose."""
    import resource

    names = ("AS", "FSIZE", "CORE", "NOFILE", "MEMLOCK", "MSGQUEUE", "RTPRIO", "NICE")
    passed = []
    for name in names:
        which = getattr(resource, f"RLIMIT_{name}")
        before = resource.getrlimit(which)
        try:
            resource.setrlimit(which, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        except (OSError, ValueError):
            continue
        if before != (resource.RLIM_INFINITY, resource.RLIM_INFINITY):
            passed.append(name)
    return passed


def fail_with(message: str) -> None:
    """Fail as a decoder that quotes the bytes of its sample."""
    raise ValueError(message)
