"""Runs that are stopped within a commit, declared dead, and continue after a newer run has published."""

from __future__ import annotations

import itertools
import shutil
import signal
from pathlib import Path

import dagster as dg
import pytest

from tests.faults.conftest import FENCED, TEXT
from tests.faults.published import Published, published
from tests.faults.victim import ADVANCING, Fault, Home, Victim

BACKFILL = ("backfill", "tiny@v1")
# One of each kind, in the order of a run: each zombie continues where the previous one was stopped.
BOUNDARIES = [
    r"commit stages/segments",
    r"create registry/refs/tiny/v1/text/segments",
    r"append cache/embed",
    r"create features/",
    r"create registry/pins/",
]


def stopped(home: Home, fault: Fault) -> Victim | None:
    """Start a run that stops itself, and declare it dead, as the daemon does with a run that does not answer."""
    zombie = home.start(*BACKFILL, fault=fault)
    if not zombie.until_stopped():
        return None
    with dg.DagsterInstance.from_config(home.environment["DAGSTER_HOME"]) as instance:
        (run,) = instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED]))
        assert run.tags["mm/process"].split(":")[1] == str(zombie.pid)
        instance.report_run_failed(run, "it no longer answers")
    return zombie


def assert_harmless(home: Home, zombies: list[Victim], expected: Published) -> None:
    """Publish by a newer run, then continue each zombie: it changes nothing that is read, and reports one line."""
    newer = home.mm(*BACKFILL)
    assert newer.code == 0, newer.text
    before = versions(home)
    for zombie in zombies:
        zombie.go_on()
        assert zombie.join() == 1, zombie.text
        told = [line for line in zombie.text.splitlines() if FENCED.search(line)]
        assert len(told) == 1, zombie.text
        assert told[0].startswith("text is failed: ")
        assert "Traceback" not in zombie.text
        assert versions(home) == before
    again = home.mm(*BACKFILL)
    assert (again.code, "nothing was computed" in again.text) == (0, True), again.text
    published(home.store, TEXT).assert_like(expected)


def versions(home: Home) -> dict[str, object]:
    """Return the pins and refs: they decide what is read."""
    root = Path(home.store)
    return {
        str(path): path.read_bytes()
        for part in ("pins", "refs")
        for path in root.glob(f"registry/{part}/**/*.json")
    }


def test_zombies_overwrite_nothing(home: Home, expected: Published) -> None:
    zombies = []
    for label in BOUNDARIES:
        zombie = stopped(home, Fault(label=label, signal=signal.SIGSTOP))
        assert zombie is not None, label
        zombies.append(zombie)
    assert_harmless(home, zombies, expected)


@pytest.mark.slow
def test_a_zombie_at_every_boundary(registered: Home, memory: Path, expected: Published) -> None:
    for at in itertools.count(1):
        home = registered.copy(memory / f"zombie-{at}")
        zombie = stopped(home, Fault(at, label=ADVANCING, signal=signal.SIGSTOP))
        if zombie is None:
            break
        assert_harmless(home, [zombie], expected)
        shutil.rmtree(home.root)
        assert at < 300
    print(f"a zombie at each of {at - 1} boundaries")
    assert at > 40
