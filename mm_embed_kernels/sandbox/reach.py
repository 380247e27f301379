"""Attempts of a confined child to reach beyond itself, made by `mm doctor`."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from typing import Any

# What a child can do where the kernel lacks a layer.
EFFECTS = {
    "landlock": ("reads files of this user",),
    "seccomp": ("opens sockets", "runs programs", "signals its parent", "writes files"),
}


def reach_out(file: str, parent: int) -> list[str]:
    """Return what this process can do that it should not; runs in a child.

    Args:
        file: that holds no code, and that its user may read.
        parent: number of the parent's process.
    """
    tries: dict[str, Callable[[], Any]] = {
        "reads files of this user": lambda: os.close(os.open(file, os.O_RDONLY)),
        "writes files": lambda: os.close(os.open(file, os.O_WRONLY | os.O_APPEND)),
        "opens sockets": lambda: socket.socket().close(),
        "runs programs": lambda: os.waitpid(os.posix_spawn("/bin/true", ["true"], {}), 0),
        "signals its parent": lambda: os.kill(parent, 0),
    }
    return [effect for effect, attempt in tries.items() if _succeeds(attempt)]


def _succeeds(attempt: Callable[[], Any]) -> bool:
    try:
        attempt()
    except OSError:
        return False
    return True
