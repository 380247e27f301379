"""The default number of sandboxed children."""

from __future__ import annotations

import os

import psutil

from mm_resources.resources import SandboxResource


def test_children_are_as_many_as_cores_and_memory_allow() -> None:
    cores, memory_mb = len(os.sched_getaffinity(0)), psutil.virtual_memory().total >> 20
    assert SandboxResource(memory_mb=1).limits().workers == cores
    assert SandboxResource(memory_mb=memory_mb).limits().workers == 1
    assert SandboxResource(memory_mb=4 * memory_mb).limits().workers == 1
    assert SandboxResource(workers=3, memory_mb=memory_mb).limits().workers == 3
