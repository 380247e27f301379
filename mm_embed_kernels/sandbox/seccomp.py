"""A seccomp filter for a process that computes and answers, and does nothing else.

The libraries for seccomp need libseccomp of the system, so that the filter is written here: a list of
comparisons. The kernel knows beforehand which numbers pass whatever their arguments are, so that they cost
nothing.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
from collections.abc import Iterator

from mm_embed_kernels.sandbox import syscalls
from mm_embed_kernels.sandbox.syscalls import Number

# AUDIT_ARCH_X86_64 and AUDIT_ARCH_AARCH64, with the column of the tables.
_MACHINES = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}
_PR_SET_NO_NEW_PRIVS = 38
_SECCOMP_SET_MODE_FILTER, _SECCOMP_GET_ACTION_AVAIL, _TSYNC = 1, 2, 1
# Instructions of classic BPF, and the filter's verdicts (linux/seccomp.h).
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _ERRNO, _KILL = 0x7FFF0000, 0x00050000, 0x80000000
_NUMBER_AT, _MACHINE_AT, _ARGUMENTS_AT = 0, 4, 16
_CLONE_THREAD = 0x00010000
# O_WRONLY, O_RDWR, O_CREAT and O_TRUNC, alike on both machines.
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
# Commands that have the kernel send signals to others (F_SETOWN, F_SETSIG, F_SETOWN_EX, F_NOTIFY; FIOSETOWN,
# SIOCSPGRP), or type into a terminal (TIOCSTI, TIOCLINUX).
_FCNTL_COMMANDS = (8, 10, 15, 1026)
_IOCTL_COMMANDS = (0x8901, 0x8902, 0x5412, 0x541C)
# Commands that a decoder needs, alike on both machines: descriptors, their flags (F_DUPFD to F_SETFL,
# F_DUPFD_CLOEXEC, F_GETPIPE_SZ), FIONREAD, FIONBIO, FIOCLEX, FIONCLEX, and what asks whether a file is a
# terminal (TCGETS, TCGETS2). Others lock files, or set attributes of files that are open for reading.
_DECODER_FCNTL_COMMANDS = (0, 1, 2, 3, 4, 1030, 1032)
_DECODER_IOCTL_COMMANDS = (0x541B, 0x5421, 0x5451, 0x5450, 0x5401, 0x802C542A)
# PR_SET_PDEATHSIG and PR_SET_DUMPABLE, which the process has set for good.
_PRCTL_COMMANDS = (1, 4)
# Signals that stop a process (SIGSTOP, SIGTSTP, SIGTTIN, SIGTTOU, alike on both machines): the time of a
# child that is stopped is not its own. Their place among the arguments.
_STOPS = (19, 20, 21, 22)
_SIGNAL_AT = {syscalls.KILL: 1, syscalls.TGKILL: 2}
# PRIO_PGRP and PRIO_USER: priorities of other processes.
_PRIORITIES = (1, 2)


def is_offered() -> bool:
    """Return whether the kernel filters the system calls of this kind of machine."""
    if platform.machine() not in _MACHINES:
        return False
    action = ctypes.c_uint32(_ERRNO)
    number = _number(syscalls.SECCOMP)
    library = ctypes.CDLL(None)
    return bool(library.syscall(number, _SECCOMP_GET_ACTION_AVAIL, 0, ctypes.byref(action)) == 0)


def forbid_privileges() -> None:
    """Let no program that this process executes gain privileges; Landlock and seccomp ask for it.

    Raises:
        OSError: when the kernel refuses.
    """
    library = ctypes.CDLL(None, use_errno=True)
    if library.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_NO_NEW_PRIVS)")


def filter_calls(writes: bool) -> None:
    """Refuse all threads of this process what a computation does not need, for good.

    Refused are sockets, programs, other processes (their memory, signals, limits), keys, io_uring, mounts,
    shared memory, attributes of files, and all system calls that are newer than the tables.

    Args:
        writes: whether files may be created and opened for writing, as models do.

    Raises:
        OSError: when the kernel refuses the filter.
    """
    program = b"".join(_instructions(writes))
    code = ctypes.create_string_buffer(program, len(program))
    header = struct.pack("HP", len(program) // 8, ctypes.addressof(code))
    library = ctypes.CDLL(None, use_errno=True)
    if library.syscall(_number(syscalls.SECCOMP), _SECCOMP_SET_MODE_FILTER, _TSYNC, header):
        raise OSError(ctypes.get_errno(), "seccomp(SECCOMP_SET_MODE_FILTER)")


def _number(call: Number) -> int | None:
    return call[_MACHINES[platform.machine()][1]]


def _instructions(writes: bool) -> Iterator[bytes]:
    """Stream the instructions of the filter."""
    machine, _ = _MACHINES[platform.machine()]
    yield _code(_LOAD, _MACHINE_AT)
    yield _code(_EQUAL, machine, 1, 0)
    yield _code(_RETURN, _KILL)  # numbers of another machine (32-bit calls)
    yield _code(_LOAD, _NUMBER_AT)
    yield from _refuse_if(_AT_LEAST, syscalls.UNKNOWN, errno.ENOSYS)  # and the calls of x32
    groups = [syscalls.SOCKETS, syscalls.PROCESSES, syscalls.KERNEL, syscalls.SHARED, syscalls.ATTRIBUTES]
    for group in groups if writes else [*groups, syscalls.NAMES, syscalls.LOCKS]:
        for call in group.values():
            if (number := _number(call)) is not None:
                yield from _refuse_if(_EQUAL, number, errno.EPERM)
    # Their arguments lie in memory, which a filter does not see; libraries then call the older ones.
    for call in (syscalls.CLONE3, syscalls.OPENAT2):
        number = _number(call)
        assert number is not None
        yield from _refuse_if(_EQUAL, number, errno.ENOSYS)
    own = os.getpid()
    yield from _judge(syscalls.CLONE, 0, allowed_bits=_CLONE_THREAD)
    for call in (syscalls.KILL, syscalls.TGKILL):
        yield from _judge(call, _SIGNAL_AT[call], refused=_STOPS, goes_on=True)
        yield from _judge(call, 0, allowed=(own,))
    yield from _judge(syscalls.PRLIMIT64, 0, allowed=(0, own))
    yield from _judge(syscalls.SETPRIORITY, 0, refused=_PRIORITIES, goes_on=True)
    yield from _judge(syscalls.SETPRIORITY, 1, allowed=(0, own))
    if writes:
        yield from _judge(syscalls.FCNTL, 1, refused=_FCNTL_COMMANDS)
        yield from _judge(syscalls.IOCTL, 1, refused=_IOCTL_COMMANDS)
    else:
        yield from _judge(syscalls.FCNTL, 1, allowed=_DECODER_FCNTL_COMMANDS)
        yield from _judge(syscalls.IOCTL, 1, allowed=_DECODER_IOCTL_COMMANDS)
    yield from _judge(syscalls.PRCTL, 0, refused=_PRCTL_COMMANDS)
    if not writes:  # libraries of models bind their threads to cores
        yield from _judge(syscalls.SCHED_SETAFFINITY, 0, allowed=(0, own))
        yield from _judge(syscalls.OPEN, 1, refused_bits=_WRITES)
        yield from _judge(syscalls.OPENAT, 2, refused_bits=_WRITES)
    yield _code(_RETURN, _ALLOW)


def _judge(
    call: Number,
    argument: int,
    allowed: tuple[int, ...] = (),
    refused: tuple[int, ...] = (),
    allowed_bits: int = 0,
    refused_bits: int = 0,
    goes_on: bool = False,
) -> list[bytes]:
    """Return the instructions about a call whose argument, of 32 bits, decides.

    Args:
        call: number of the call.
        argument: place of the argument.
        allowed: values that pass; others do not.
        refused: values that do not pass; others do.
        allowed_bits: any of these must be set.
        refused_bits: none of these may be set.
        goes_on: whether the next instructions judge what passes `refused`.
    """
    number = _number(call)
    if number is None:
        return []
    refusal = errno.EACCES if refused_bits else errno.EPERM
    body = [_code(_LOAD, _ARGUMENTS_AT + 8 * argument)]
    for value in allowed:
        body += [_code(_EQUAL, value & 0xFFFFFFFF, 0, 1), _code(_RETURN, _ALLOW)]
    for value in refused:
        body += _refuse_if(_EQUAL, value, refusal)
    if allowed_bits:
        body += [_code(_ANY_BIT, allowed_bits, 0, 1), _code(_RETURN, _ALLOW)]
    if refused_bits:
        body += _refuse_if(_ANY_BIT, refused_bits, refusal)
    passes = bool(refused or refused_bits)
    verdict = _code(_RETURN, _ALLOW if passes else _ERRNO | refusal)
    body.append(_code(_LOAD, _NUMBER_AT) if goes_on else verdict)
    return [_code(_EQUAL, number, 0, len(body)), *body]


def _refuse_if(test: int, value: int, error: int) -> list[bytes]:
    return [_code(test, value, 0, 1), _code(_RETURN, _ERRNO | error)]


def _code(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("HBBI", code, if_true, if_false, value)
