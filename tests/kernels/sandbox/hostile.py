"""What a decoder does that content has taken over; its functions run in sandboxed children."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import platform
import signal
import socket
import struct
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mm_embed_kernels.modalities import get

_COLUMN = {"x86_64": 0, "aarch64": 1}
# System calls that Python has no function for.
_CALLS = {
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "pidfd_getfd": (438, 438),
    "io_uring_setup": (425, 425),
    "keyctl": (250, 219),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "unshare": (272, 97),
    "mount": (165, 40),
    "tgkill": (234, 131),
    "timer_create": (222, 107),
    "shmget": (29, 194),
    "openat2": (437, 437),
    "clone3": (435, 435),
    "execveat": (322, 281),
    "add_key": (248, 217),
    "prlimit64": (302, 261),
    "sync": (162, 81),
    "memfd_secret": (447, 447),
    "mlockall": (151, 230),
    "shmat": (30, 196),
    "clone": (56, 220),
    "process_vm_writev": (311, 271),
    "pidfd_send_signal": (424, 424),
    "process_madvise": (440, 440),
    "open_by_handle_at": (304, 265),
    "setns": (308, 268),
    "pivot_root": (155, 41),
    "io_setup": (206, 0),
    "vmsplice": (278, 75),
    "tee": (276, 77),
    "semget": (64, 190),
    "msgget": (68, 186),
    "mq_open": (240, 180),
    "rt_sigqueueinfo": (129, 138),
    "kcmp": (312, 272),
    "inotify_init1": (294, 26),
    "fanotify_init": (300, 262),
    "name_to_handle_at": (303, 264),
    "pidfd_open": (434, 434),
    "process_mrelease": (448, 448),
    "sched_setscheduler": (144, 119),
    "ioprio_set": (251, 30),
    "migrate_pages": (256, 238),
    "futex_waitv": (449, 449),
    "mseal": (462, 462),
}
# FS_IOC_SETFLAGS, FS_IOC_FSSETXATTR, FS_IOC_ENABLE_VERITY, FICLONE: they set attributes of a file that is
# open for reading, or write it.
_FILE_COMMANDS = {
    "flags": (0x40086602, struct.pack("l", 0x80)),
    "project": (0x401C5820, bytes(28)),
    "verity": (0x40806685, bytes(128)),
    "clone of a file": (0x40049409, bytes(8)),
}


def call(name: str, *arguments: int) -> None:
    """Make a system call; a bad argument is an error of another kind than a refusal."""
    library = ctypes.CDLL(None, use_errno=True)
    number = _CALLS[name][_COLUMN[platform.machine()]]
    if library.syscall(number, *(ctypes.c_long(each) for each in arguments)) < 0:
        raise OSError(ctypes.get_errno(), name)


def try_all(attempts: dict[str, Callable[[], Any]]) -> list[str]:
    """Return the attempts that were not refused."""
    passed = []
    for name, attempt in attempts.items():
        try:
            attempt()
        except OSError as error:
            if error.errno in (errno.EPERM, errno.EACCES, errno.ENOSYS, errno.EFBIG):
                continue
            passed.append(f"{name}: {error}")
        except Exception as error:  # noqa: BLE001 - reported to the test
            passed.append(f"{name}: {type(error).__name__}: {error}")
        else:
            passed.append(name)
    return passed


def decode(modality: str, data: bytes) -> None:
    """Decode a healthy sample, if any, so that all libraries are loaded and their threads run."""
    assert not modality or get(modality).probe(data)["mime"]  # type: ignore[arg-type]


def read_files(modality: str, data: bytes, secrets: list[str], parent: int) -> list[str]:
    decode(modality, data)
    return try_all(
        {
            **{f"read {path}": lambda path=path: Path(path).read_bytes() for path in secrets},
            **{f"list {path}": lambda path=path: os.listdir(Path(path).parent) for path in secrets},
            "passwd": lambda: Path("/etc/passwd").read_text(),
            "tmp": lambda: os.listdir("/tmp"),
            "root": lambda: os.listdir("/"),
            "environment of the parent": lambda: Path(f"/proc/{parent}/environ").read_bytes(),
            "memory of the parent": lambda: open(f"/proc/{parent}/mem", "rb").close(),
            "files of the parent": lambda: os.listdir(f"/proc/{parent}/fd"),
        }
    )


def write_files(modality: str, data: bytes, store: str) -> list[str]:
    decode(modality, data)
    victim, new = f"{store}/victim", f"{store}/new"
    return try_all(
        {
            "create": lambda: Path(new).write_text("x"),
            "append": lambda: open(victim, "ab").close(),
            "truncate": lambda: os.truncate(victim, 0),
            "remove": lambda: os.unlink(victim),
            "rename": lambda: os.rename(victim, new),
            "link": lambda: os.link(victim, new),
            "symlink": lambda: os.symlink(victim, new),
            "folder": lambda: os.mkdir(new),
            "pipe": lambda: os.mkfifo(new),
            "mode": lambda: os.chmod(victim, 0o777),
            "times": lambda: os.utime(victim, (1, 1)),
            "owner": lambda: os.chown(victim, os.getuid(), os.getgid()),
            "attribute": lambda: os.setxattr(victim, "user.a", b"x"),
            "memory file": lambda: os.write(os.memfd_create("bomb"), b"x"),
            "shared memory": lambda: call("shmget", 0, 4096, 0o1600),
        }
    )


def reach_others(modality: str, data: bytes, parent: int, port: int, path: str) -> list[str]:
    decode(modality, data)

    def connect(family: int, kind: int, address: Any) -> None:
        with socket.socket(family, kind) as opened:
            opened.connect(address)

    def in_thread() -> None:
        caught: list[OSError] = []

        def run() -> None:
            try:
                socket.socket().close()
            except OSError as error:
                caught.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
        if caught:
            raise caught[0]

    own = socket.socket(fileno=os.dup(channel()))
    tcp, udp = (socket.AF_INET, socket.SOCK_STREAM), (socket.AF_INET, socket.SOCK_DGRAM)
    return try_all(
        {
            "TCP": lambda: connect(*tcp, ("127.0.0.1", port)),
            "UDP": lambda: connect(*udp, ("127.0.0.1", 53)),
            "unix": lambda: connect(socket.AF_UNIX, socket.SOCK_STREAM, path),
            "abstract": lambda: connect(socket.AF_UNIX, socket.SOCK_STREAM, "\0any"),
            "netlink": lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW),
            "pair": socket.socketpair,
            "in a thread": in_thread,
            "bind": lambda: own.bind("\0mine"),
            "execve": lambda: os.execv("/bin/true", ["true"]),
            "spawn": lambda: os.posix_spawn("/bin/true", ["true"], {}),
            "subprocess": lambda: subprocess.run(["true"], check=False),
            "fork": lambda: os.fork() or os._exit(0),
            "clone3": lambda: call("clone3", 0, 0),
            "signal 0": lambda: os.kill(parent, 0),
            "SIGTERM": lambda: os.kill(parent, signal.SIGTERM),
            "all processes": lambda: os.kill(-1, signal.SIGTERM),
            "group": lambda: os.killpg(os.getpgid(parent), signal.SIGTERM),
            "own stop": lambda: os.kill(os.getpid(), signal.SIGSTOP),
            "own stop as of a terminal": lambda: os.kill(os.getpid(), signal.SIGTSTP),
            "stop by a timer": stop_by_timer,
            "stop of an own thread": lambda: call("tgkill", os.getpid(), os.getpid(), signal.SIGSTOP),
            "thread of the parent": lambda: call("tgkill", parent, parent, 0),
            "owner of a descriptor": lambda: fcntl.fcntl(channel(), fcntl.F_SETOWN, parent),
            "ioctl owner": lambda: fcntl.ioctl(channel(), 0x8901, struct.pack("i", parent)),
            "limits of the parent": lambda: resource_of(parent),
            "cores of the parent": lambda: os.sched_setaffinity(parent, os.sched_getaffinity(0)),
            "priority of the parent": lambda: os.setpriority(os.PRIO_PROCESS, parent, 19),
            "priority of the user": lambda: os.setpriority(os.PRIO_USER, 0, 19),
            "priority of the group": lambda: os.setpriority(os.PRIO_PGRP, 0, 19),
            "trace": lambda: call("ptrace", 16, parent, 0, 0),
            "memory": lambda: call("process_vm_readv", parent, 0, 0, 0, 0, 0),
            "pidfd": lambda: os.pidfd_open(parent),
            "its descriptors": lambda: call("pidfd_getfd", 0, 3, 0),
            "io_uring": lambda: call("io_uring_setup", 1, 0),
            "keys": lambda: call("keyctl", 0, -3, 0),
            "bpf": lambda: call("bpf", 0, 0, 0),
            "perf": lambda: call("perf_event_open", 0, 0, -1, -1, 0),
            "userfaultfd": lambda: call("userfaultfd", 0),
            "namespaces": lambda: call("unshare", 0x10000000),
            "mounts": lambda: call("mount", 0, 0, 0, 0, 0),
            "openat2": lambda: call("openat2", -100, 0, 0, 0),
        }
    )


def harm_held_file(modality: str, data: bytes, held: Path) -> list[str]:
    """Lock, lease, or alter a file that this process was handed open for reading."""
    decode(modality, data)
    number = held.fileno()  # type: ignore[attr-defined] # a HeldFile
    lock = struct.pack("hhqqi4x", fcntl.F_RDLCK, 0, 0, 0, 0)
    return try_all(
        {
            "flock": lambda: fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB),
            "lock": lambda: fcntl.fcntl(number, fcntl.F_SETLK, lock),
            "lock of the description": lambda: fcntl.fcntl(number, 37, lock),
            "lease": lambda: fcntl.fcntl(number, fcntl.F_SETLEASE, fcntl.F_RDLCK),
            "notices": lambda: fcntl.fcntl(number, fcntl.F_NOTIFY, 1),
            "mode": lambda: os.fchmod(number, 0o777),
            "times": lambda: os.utime(number, (1, 1)),
            "attribute": lambda: os.setxattr(number, "user.a", b"x"),
            "reopened": lambda: os.close(os.open(f"/proc/self/fd/{number}", os.O_RDWR)),
            **{
                name: lambda command=command, value=value: fcntl.ioctl(number, command, value)
                for name, (command, value) in _FILE_COMMANDS.items()
            },
        }
    )


def undo_confinement(modality: str, data: bytes, parent: int) -> list[str]:
    """Take back what the process gave up, reach the machine's state, or fill its memory and disks."""
    decode(modality, data)
    most, words = (1 << 62), 0x10000 | 0x100 | 0x800  # CLONE_THREAD, CLONE_VM, CLONE_SIGHAND

    def raise_limit(which: int) -> None:
        pair = ctypes.create_string_buffer(struct.pack("QQ", most, most))
        call("prlimit64", 0, which, ctypes.addressof(pair), 0)

    def send_key() -> None:
        name = ctypes.create_string_buffer(b"user")
        at = ctypes.addressof(name)
        call("add_key", at, at, at, 1, -3)

    def set_dumpable() -> None:
        library = ctypes.CDLL(None, use_errno=True)
        for option, value in ((4, 1), (1, 0), (38, 0)):  # PR_SET_DUMPABLE, _PDEATHSIG, _NO_NEW_PRIVS
            if library.prctl(option, value, 0, 0, 0) == 0:
                return
        raise OSError(errno.EPERM, "prctl")

    return try_all(
        {
            "size of files": lambda: raise_limit(1),
            "core files": lambda: raise_limit(4),
            "memory": lambda: raise_limit(9),
            "dumpable": set_dumpable,
            "own memory as a file": lambda: open("/proc/self/mem", "r+b").close(),
            "shared memory": lambda: open("/dev/shm/mm-attack", "wb").close(),
            "list of shared memory": lambda: os.listdir("/dev/shm"),
            "attached memory": lambda: call("shmat", 0, 0, 0),
            "temporary file": lambda: open("/tmp/mm-attack", "wb").close(),
            "nameless file": lambda: os.close(os.open("/tmp", os.O_TMPFILE | os.O_RDWR)),
            "size of a memory file": lambda: os.ftruncate(os.memfd_create("bomb"), 1 << 30),
            "space of a memory file": lambda: os.posix_fallocate(os.memfd_create("bomb"), 0, 1 << 30),
            "program in memory": lambda: call("execveat", os.memfd_create("x"), 0, 0, 0, 0x1000),
            "secret memory": lambda: call("memfd_secret", 0),
            "locked memory": lambda: call("mlockall", 2),
            "all disks": lambda: call("sync"),
            "key": send_key,
            "namespace of threads": lambda: call("clone", 0x10000000, 0, 0, 0, 0),
            "child of another parent": lambda: call("clone", 0x8000, 0, 0, 0, 0),
            "thread in a namespace": lambda: call("clone", words | 0x40000000, 0, 0, 0, 0),
            "namespace of the parent": lambda: call("setns", 0, 0),
            "root": lambda: call("pivot_root", 0, 0),
            "handle of a file": lambda: call("open_by_handle_at", -100, 0, 0),
            "memory of the parent": lambda: call("process_vm_writev", parent, 0, 0, 0, 0, 0),
            "advice for the parent": lambda: call("process_madvise", 0, 0, 0, 0, 0),
            "signal by a descriptor": lambda: call("pidfd_send_signal", 0, signal.SIGKILL, 0, 0),
            "own group": lambda: os.kill(0, signal.SIGTERM),
            "status of the parent": lambda: Path(f"/proc/{parent}/status").read_text(),
            "words of the parent": lambda: Path(f"/proc/{parent}/cmdline").read_text(),
            "all processes": lambda: os.listdir("/proc"),
            "own folder": lambda: os.listdir("/proc/self/cwd"),
            "root by a link": lambda: os.listdir("/proc/self/root"),
            "terminal": lambda: open("/dev/tty", "rb").close(),
            "log of the kernel": lambda: open("/dev/kmsg", "rb").close(),
            "daemon": lambda: os.fork() or os._exit(0),
        }
    )


def start_threads(count: int, seconds: float) -> int:
    """Start threads that wait for ever, with small stacks, and answer some seconds later."""
    threading.stack_size(32 << 10)
    for _ in range(count):
        threading.Thread(target=threading.Event().wait, daemon=True).start()
    threading.Event().wait(seconds)
    return count


def close_channel(number: int) -> None:
    """Close the channel and live on."""
    os.close(channel())
    threading.Event().wait(number)


def send_beside(kind: str) -> str:
    """Send what is no answer before the answer."""
    own = socket.socket(fileno=os.dup(channel()))
    if kind == "descriptors":
        socket.send_fds(own, [struct.pack("<QI", 8, 0) + b"\xa7healthy"], [0, 1, 2])
        threading.Event().wait(60)
    elif kind == "out of band":
        own.send(b"x", socket.MSG_OOB)
        threading.Event().wait(60)
    return "healthy"


def stop_by_timer() -> None:
    event = ctypes.create_string_buffer(struct.pack("Qii", 0, signal.SIGSTOP, 0), 64)
    number = ctypes.create_string_buffer(8)
    call("timer_create", 1, ctypes.addressof(event), ctypes.addressof(number))


def look_for_sockets() -> list[str]:
    return try_all({"socket": lambda: socket.socket().close()})


def resource_of(pid: int) -> None:
    import resource

    resource.prlimit(pid, resource.RLIMIT_CPU, (1, 1))


def look_around(modality: str, data: bytes) -> dict[str, Any]:
    """Return what a child sees of itself."""
    decode(modality, data)
    status = dict(
        line.split(":\t", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":\t" in line
    )
    files = [
        os.readlink(f"/proc/self/fd/{number}") for number in os.listdir("/proc/self/fd") if _is_open(number)
    ]
    return {
        "environment": dict(os.environ),
        "status": status,
        "files": [name for name in files if name != "/dev/null" and not name.startswith("/proc/")],
        "session": os.getsid(0) == os.getpid(),
        "dumpable": ctypes.CDLL(None).prctl(3, 0, 0, 0, 0),
    }


def _is_open(number: str) -> bool:
    return os.path.lexists(f"/proc/self/fd/{number}")


def channel() -> int:
    """Return the descriptor of the child's one socket."""
    for number in os.listdir("/proc/self/fd"):
        if _is_open(number) and os.readlink(f"/proc/self/fd/{number}").startswith("socket:"):
            return int(number)
    raise AssertionError("no socket")


def answer_with(frame: bytes | None) -> Any:
    """Write a message of one's own into the channel; a plain answer for None."""
    if frame is not None:
        os.write(channel(), frame)
        os._exit(0)
    return "healthy"


def answer_half(half: bool) -> Any:
    """Begin an answer of 100 bytes, and sleep in its middle; a plain answer otherwise."""
    if half:
        os.write(channel(), struct.pack("<QI", 100, 0) + b"\xc0")
        threading.Event().wait(600)
    return "healthy"


def speak_out_of_turn(extra: bytes) -> str:
    """Answer, and once more unasked."""
    threading.Timer(0.2, os.write, (channel(), extra)).start()
    return "healthy"


class Evil:
    """Runs code where it is unpickled."""

    def __init__(self, mark: str) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return exec, (f"open({self.mark!r}, 'w').close()",)


def answer_evil(mark: str) -> Any:
    return Evil(mark)
