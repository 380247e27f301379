"""Ray processes killed while a kernel runs."""

from __future__ import annotations

import itertools
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from mm_resources.cell import Cell
from tests.faults.conftest import SENTENCES, write_texts
from tests.faults.published import cached, published, stored
from tests.faults.victim import Fault, Home, Victim, lend_copy

CROWD = Cell("crowd", "v1", "text")
BACKFILL = ("backfill", "crowd@v1", "--mode", "ray")
# Far more blocks than Ray processes at once, so that a kill hits a running kernel.
RECORDS, CHECKPOINT_ROWS = 120, 8


@pytest.fixture(scope="module")
def crowd(memory: Path) -> Home:
    words = [sentence.split() for sentence in SENTENCES]
    many = [
        f"{' '.join(first[:4])} {' '.join(second[-3:])} {part}"
        for part in "ab"
        for first, second in itertools.product(words, repeat=2)
    ]
    many = many[:RECORDS]
    home = Home(memory / "crowd", checkpoint_rows=CHECKPOINT_ROWS)
    assert home.mm("register", str(write_texts(memory, "crowd", many))).code == 0
    return home


@pytest.fixture(scope="module")
def whole(crowd: Home, memory: Path) -> Home:
    """A store in which one undisturbed run published, without Ray."""
    home = crowd.copy(memory / "whole-crowd")
    done = home.mm(*BACKFILL[:2], "--mode", "inline")
    assert done.code == 0, done.text
    return home


@pytest.fixture
def home(crowd: Home, memory: Path) -> Iterator[Home]:
    with lend_copy(crowd, memory / "ray-home") as home:
        yield home


def struck(home: Home, kind: str) -> Victim:
    """Start a run and kill its Ray processes of a kind between two checkpoints of the embedder."""
    run = home.start(*BACKFILL, fault=Fault(2, label="append cache/embed", signal=signal.SIGSTOP))
    assert run.until_stopped(), run.text
    chosen = [
        process
        for process in psutil.Process(run.pid).children(recursive=True)
        if kind in " ".join(process.cmdline())
    ]
    assert chosen
    for process in chosen:
        os.kill(process.pid, signal.SIGKILL)
    run.go_on()
    return run


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ray::MapWorker", "raylet/raylet"])
def test_a_killed_process_of_ray(home: Home, whole: Home, kind: str) -> None:
    """The run recovers, or fails with one line; the next run completes it exactly."""
    run = struck(home, kind)
    code = run.join()
    told = [line for line in run.text.splitlines() if line.startswith(("text is failed: ", "error: "))]
    assert (code, len(told)) in ((0, 0), (1, 1)), run.text
    # Workers exit by themselves when their raylet is gone.
    left = [
        process
        for process in psutil.process_iter(["environ"])
        if (process.info["environ"] or {}).get("MM_STORE") == home.store
    ]
    assert not psutil.wait_procs(left, timeout=60)[1]
    assert "Traceback" not in run.text
    done = home.mm(*BACKFILL)
    assert done.code == 0, done.text
    published(home.store, CROWD).assert_like(published(whole.store, CROWD))
    assert cached(home.store) == cached(whole.store)
    assert stored(home.store) == stored(whole.store)
