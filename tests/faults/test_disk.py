"""A store that is full, or becomes read-only half-way."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from mm_resources.cell import Cell
from mm_resources.retrieval.feature_store import FeatureStore
from tests.faults.conftest import SENTENCES, TEXT, write_texts
from tests.faults.published import Published, published
from tests.faults.victim import Fault, Home, Victim, running

BACKFILL = ("backfill", "tiny@v1")
OTHER = Cell("other", "v1", "text")


def assert_failed_in_one_line(run: Victim, *words: str) -> None:
    assert run.code in (1, 2), run.text
    told = [line for line in run.text.splitlines() if line.startswith(("text is failed: ", "error: "))]
    assert len(told) == 1, run.text
    assert "Traceback" not in run.text
    assert any(word in told[0] for word in words), told[0]


def mount(*words: object) -> None:
    subprocess.run(["mount", *map(str, words)], check=True, capture_output=True)


@pytest.fixture(scope="module")
def beside(registered: Home, memory: Path) -> Home:
    """A store in which another cell is published and ``tiny@v1`` is registered."""
    home = registered.copy(memory / "beside")
    for words in (["register", str(write_texts(memory, "other", SENTENCES[:3]))], ["backfill", "other@v1"]):
        done = home.mm(*words)
        assert done.code == 0, done.text
    return home


@pytest.fixture
def small(beside: Home, tmp_path: Path) -> Iterator[Home]:
    """The same store on a disk of a few megabytes."""
    disk = tmp_path / "disk"
    disk.mkdir()
    try:
        mount("-t", "tmpfs", "-o", "size=8m", "tmpfs", disk)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"a small disk cannot be mounted here: {error}")
    try:
        home = beside.copy(tmp_path / "home")
        shutil.copytree(home.store, disk / "store")
        yield Home(home.root, store=disk / "store")
    finally:
        for victim in running():
            victim.kill()
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


@pytest.fixture
def pinned(beside: Home) -> Published:
    """The published state of the other cell."""
    return published(beside.store, OTHER)


def assert_served(home: Home, pinned: Published) -> None:
    published(home.store, OTHER).assert_like(pinned)
    hits = FeatureStore.open(home.store).search([1.0] * 256, dataset_version="other@v1", modality="text")
    assert hits.num_rows == 3


@pytest.mark.slow
def test_a_full_disk(small: Home, pinned: Published, expected: Published) -> None:
    """Space shrinks: each run fails where it finds none, and the run that has it resumes from there."""
    ballast = Path(small.store).parent / "ballast"
    for room in (0, 20_000, 120_000):
        ballast.unlink(missing_ok=True)
        free = shutil.disk_usage(ballast.parent).free
        ballast.write_bytes(bytes(max(0, free - room)))
        assert_failed_in_one_line(small.mm(*BACKFILL), "No space left")
        assert_served(small, pinned)
    ballast.unlink()
    done = small.mm(*BACKFILL)
    assert done.code == 0, done.text
    published(small.store, TEXT).assert_like(expected)
    assert_served(small, pinned)


@pytest.mark.parametrize(
    "label", [pytest.param("append cache/embed", marks=pytest.mark.slow), "create registry/pins/"]
)
def test_a_store_that_becomes_read_only(
    small: Home, pinned: Published, expected: Published, label: str
) -> None:
    disk = Path(small.store).parent
    run = small.start(*BACKFILL, fault=Fault(label=label, signal=signal.SIGSTOP))
    assert run.until_stopped(), run.text
    mount("-o", "remount,ro", disk)
    run.go_on()
    run.join()
    assert_failed_in_one_line(run, "Read-only file system")
    assert_served(small, pinned)
    assert_failed_in_one_line(small.mm(*BACKFILL), "Read-only file system")
    mount("-o", "remount,rw", disk)
    done = small.mm(*BACKFILL)
    assert done.code == 0, done.text
    published(small.store, TEXT).assert_like(expected)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write what is read-only")
def test_a_store_of_another_user(home: Home, expected: Published) -> None:
    run = home.start(*BACKFILL, fault=Fault(label="append cache/embed", signal=signal.SIGSTOP))
    assert run.until_stopped(), run.text
    folders = [Path(home.store), *(path for path in Path(home.store).rglob("*") if path.is_dir())]
    for folder in folders:
        folder.chmod(0o555)
    run.go_on()
    run.join()
    assert_failed_in_one_line(run, "Permission denied")
    for folder in folders:
        folder.chmod(0o755)
    done = home.mm(*BACKFILL)
    assert done.code == 0, done.text
    published(home.store, TEXT).assert_like(expected)
