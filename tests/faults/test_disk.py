"""A store that is full, or becomes read-only half-way."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from mm_resources.retrieval.feature_store import FeatureStore
from tests.faults.conftest import SECOND, TEXT
from tests.faults.published import Published, published
from tests.faults.victim import Fault, Home, Victim, running

# The first version is published beside it.
BACKFILL = ("backfill", "tiny@v2")


def assert_failed_in_one_line(run: Victim, *words: str) -> None:
    assert run.code in (1, 2), run.text
    told = [line for line in run.text.splitlines() if line.startswith(("text is failed: ", "error: "))]
    assert len(told) == 1, run.text
    assert "Traceback" not in run.text
    assert any(word in told[0] for word in words), told[0]


def mount(*words: object) -> None:
    subprocess.run(["mount", *map(str, words)], check=True, capture_output=True)


@pytest.fixture
def small(prepared: Home, tmp_path: Path) -> Iterator[Home]:
    """A store with a version published and another registered, on a disk of a few megabytes."""
    disk = tmp_path / "disk"
    disk.mkdir()
    try:
        mount("-t", "tmpfs", "-o", "size=8m", "tmpfs", disk)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"a small disk cannot be mounted here: {error}")
    try:
        home = prepared.copy(tmp_path / "home")
        shutil.copytree(home.store, disk / "store")
        yield Home(home.root, store=disk / "store")
    finally:
        for victim in running():
            victim.kill()
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


def assert_served(home: Home, expected_first: Published) -> None:
    published(home.store, TEXT).assert_like(expected_first)
    hits = FeatureStore.open(home.store).search([1.0] * 256, dataset_version="tiny@v1", modality="text")
    assert hits.num_rows == 9


@pytest.mark.slow
def test_a_full_disk(small: Home, expected_first: Published, expected_second: Published) -> None:
    """Space shrinks: each run fails where it finds none, and the run that has it resumes from there."""
    ballast = Path(small.store).parent / "ballast"
    for room in (0, 20_000, 120_000):
        ballast.unlink(missing_ok=True)
        free = shutil.disk_usage(ballast.parent).free
        ballast.write_bytes(bytes(max(0, free - room)))
        assert_failed_in_one_line(small.mm(*BACKFILL), "No space left")
        assert_served(small, expected_first)
    ballast.unlink()
    done = small.mm(*BACKFILL)
    assert done.code == 0, done.text
    published(small.store, SECOND).assert_like(expected_second)
    assert_served(small, expected_first)


@pytest.mark.parametrize(
    "label", [pytest.param("append cache/embed", marks=pytest.mark.slow), "create registry/pins/"]
)
def test_a_store_that_becomes_read_only(
    small: Home, expected_first: Published, expected_second: Published, label: str
) -> None:
    disk = Path(small.store).parent
    run = small.start(*BACKFILL, fault=Fault(label=label, signal=signal.SIGSTOP))
    assert run.until_stopped(), run.text
    mount("-o", "remount,ro", disk)
    run.go_on()
    run.join()
    assert_failed_in_one_line(run, "Read-only file system")
    assert_served(small, expected_first)
    assert_failed_in_one_line(small.mm(*BACKFILL), "Read-only file system")
    mount("-o", "remount,rw", disk)
    done = small.mm(*BACKFILL)
    assert done.code == 0, done.text
    published(small.store, SECOND).assert_like(expected_second)


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
