"""Servers that tests start as processes of their own."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[1]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def process(environment: dict[str, str], module: str, *words: str) -> Iterator[None]:
    started = subprocess.Popen(
        [sys.executable, "-m", module, *words],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield
    finally:
        started.terminate()
        try:
            started.wait(10)  # what docker waits before it kills
        except subprocess.TimeoutExpired:
            started.kill()
            started.wait()


def stop_for(child: psutil.Process, seconds: float) -> None:
    """Stop a process, and let it go on after some seconds, where it has not ended by then."""

    def resume() -> None:
        with suppress(psutil.NoSuchProcess):
            child.resume()

    child.suspend()
    threading.Timer(seconds, resume).start()


def answer(url: str, data: bytes | None = None) -> bytes:
    """The body, or nothing while nobody answers."""
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            return bytes(response.read())
    except OSError:
        return b""


def until(reached: Callable[[], bool], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < deadline, "it did not come up"
        time.sleep(0.5)
