"""Cells of two modalities on a machine in trouble: busy, with children that are stopped and killed.

After the next quiet backfill nothing is lost, and no sample has a verdict that the machine has caused.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import numpy as np
import psutil
import pytest

from mm_resources.catalog import Catalog
from tests.conftest import write_dataset
from tests.faults.conftest import IMAGE, TEXT
from tests.faults.published import published
from tests.faults.victim import Home, Victim, lend_copy
from tests.kernels.sandbox.test_trouble import load
from tests.processes import stop_for

BACKFILL = ("backfill", "tiny@v1")
STOPPED_SECONDS = 45.0
# Classes of what the machine may have caused.
MACHINE = {"timeout", "memory_limit", "decoder_crash", "model_crash", "bad_answer", "store_error"}

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def tiny(memory: Path, photos: dict[str, Path]) -> Home:
    """A store in which a dataset of texts and pictures is registered, one of each damaged."""
    home = Home(memory / "trouble")
    assert home.mm("register", str(write_dataset(memory / "trouble-data", photos))).code == 0
    return home


@pytest.fixture(scope="module")
def quiet(tiny: Home, memory: Path) -> Home:
    """A store in which one undisturbed run published."""
    home = tiny.copy(memory / "trouble-quiet")
    done = home.mm(*BACKFILL)
    assert done.code == 0, done.text
    return home


@pytest.fixture
def home(tiny: Home, memory: Path) -> Iterator[Home]:
    with lend_copy(tiny, memory / "trouble-home") as home:
        yield home


@contextmanager
def children_of(run: Victim, act: Callable[[psutil.Process], None], most: int) -> Iterator[list[int]]:
    """Do something to the first children that decode or compute for a run, soon after each has started."""
    seen: list[int] = []
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.05) and len(seen) < most:
            with suppress(psutil.Error):
                for child in psutil.Process(run.pid).children(recursive=True):
                    if (
                        len(seen) < most
                        and child.pid not in seen
                        and "spawn_main" in " ".join(child.cmdline())
                    ):
                        seen.append(child.pid)
                        act(child)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield seen
    finally:
        over.set()
        thread.join()


def assert_nothing_lost(home: Home, quiet: Home) -> None:
    """Check that no sample is blamed, and that the next run publishes what an undisturbed one does."""
    catalog = Catalog.open(home.store)
    for cell in (TEXT, IMAGE):
        for failure in catalog.failures.read(cell).read_all().to_pylist():
            assert failure["retryable"] or failure["error_class"] not in MACHINE, failure
    done = home.mm(*BACKFILL)
    assert done.code == 0, done.text
    for cell in (TEXT, IMAGE):
        found, expected = published(home.store, cell), published(quiet.store, cell)
        assert found.facts["status"] == expected.facts["status"]
        assert found.facts["rows of normalized_features"] == expected.facts["rows of normalized_features"]
        assert found.vectors.keys() == expected.vectors.keys()
        for name, vectors in expected.vectors.items():
            np.testing.assert_allclose(found.vectors[name], vectors, atol=1e-5)


@pytest.mark.parametrize("mode", ["inline", "ray"])
def test_a_busy_machine_loses_nothing(home: Home, quiet: Home, mode: str) -> None:
    with load(8):
        home.start(*BACKFILL, "--mode", mode).join(1500)
    assert_nothing_lost(home, quiet)


@pytest.mark.parametrize("mode", ["inline", "ray"])
def test_children_that_are_stopped_lose_nothing(home: Home, quiet: Home, mode: str) -> None:
    with load(4):
        run = home.start(*BACKFILL, "--mode", mode)
        with children_of(run, partial(stop_for, seconds=STOPPED_SECONDS), 3) as stopped:
            run.join(1500)
    assert stopped
    assert_nothing_lost(home, quiet)


@pytest.mark.parametrize("mode", ["inline", "ray"])
def test_children_that_are_killed_lose_nothing(home: Home, quiet: Home, mode: str) -> None:
    run = home.start(*BACKFILL, "--mode", mode)
    with children_of(run, psutil.Process.kill, 5) as killed:
        run.join(1500)
    assert killed
    assert_nothing_lost(home, quiet)
