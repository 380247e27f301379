"""The processes that a meter samples."""

from __future__ import annotations

import subprocess
import sys

import psutil

from mm_resources.metering import _descendants

# A child that starts two children of its own, one of them by a thread, and waits for its input to end.
FAMILY = """
import subprocess, sys, threading
start = lambda: subprocess.Popen([sys.executable, "-c", "input()"], stdin=sys.stdin)
thread = threading.Thread(target=start)
thread.start(); thread.join()
start()
print("started", flush=True)
sys.stdin.read()
"""


def test_children_of_children_are_found_as_psutil_finds_them() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", FAMILY], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as family:
        assert family.stdout is not None
        assert family.stdout.readline() == "started\n"
        mine = psutil.Process()
        expected = {process.pid for process in mine.children(recursive=True)}
        assert {process.pid for process in _descendants(mine)} == expected
        assert len(expected & {process.pid for process in psutil.Process(family.pid).children()}) == 2
        family.communicate("")
    assert family.pid not in {process.pid for process in _descendants(psutil.Process())}
