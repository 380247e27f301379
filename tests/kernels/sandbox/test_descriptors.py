"""A parent with more open files than `select` takes."""

from __future__ import annotations

import os
import resource

import pytest

from mm_embed_kernels.sandbox.sandbox import Limits, Sandbox


def test_a_parent_may_have_many_open_files() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    if before[1] < 2_048:
        pytest.skip("this machine allows too few open files")
    resource.setrlimit(resource.RLIMIT_NOFILE, (2_048, before[1]))
    opened, held = Sandbox(Limits()), list[int]()
    try:
        while not held or held[-1] < 1_100:
            held.append(os.open(os.devnull, os.O_RDONLY))
        assert opened.map(len, [("abc",)]) == [3]
        opened.close()  # waits for the end of the child
        assert opened.map(len, [("abc",)]) == [3]
    finally:
        for number in held:
            os.close(number)
        opened.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
