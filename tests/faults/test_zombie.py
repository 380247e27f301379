"""A run that is stopped in the midst of a commit, declared dead, and wakes when a newer one has published."""

from __future__ import annotations

import re
import signal
from pathlib import Path

import dagster as dg
import pytest

from tests.faults.conftest import TEXT
from tests.faults.published import Published, cached, published
from tests.faults.victim import Fault, Home, Victim

BACKFILL = ("backfill", "tiny@v1")
BOUNDARIES = {
    "a stage's commit": r"commit stages/segments",
    "its failures": r"commit failures/raw_assets",
    "the candidate": r"create features/",
    "the candidate's commit": r"commit features/",
    "the tag": r"tag features/",
    "the pin": r"create registry/pins/",
    "the publishing stage's commit": r"commit stages/feature_views",
    "a stage's beginning": r"create stages/feature_views",
    "a checkpoint": r"append cache/embed",
}


def declare_dead(home: Home, zombie: Victim) -> None:
    """Mark the stopped run as failed, as the daemon does with a run that no longer answers."""
    with dg.DagsterInstance.from_config(home.environment["DAGSTER_HOME"]) as instance:
        (run,) = instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED]))
        assert run.tags["mm/process"].split(":")[1] == str(zombie.pid)
        instance.report_run_failed(run, "it no longer answers")


@pytest.mark.parametrize("name", BOUNDARIES)
def test_a_zombie_overwrites_nothing(home: Home, expected: Published, name: str) -> None:
    zombie = home.start(*BACKFILL, fault=Fault(label=BOUNDARIES[name], signal=signal.SIGSTOP))
    assert zombie.until_stopped(), zombie.text
    refused = home.mm(*BACKFILL)
    assert refused.code == 1
    assert re.search(rf"text is failed: run \w{{8}} \(process {zombie.pid}\) is at work on it, so nothing was done\n", refused.text)
    declare_dead(home, zombie)
    newer = home.mm(*BACKFILL)
    assert newer.code == 0, newer.text
    before = snapshot(home)
    zombie.go_on()
    assert zombie.join() == 1, zombie.text
    told = [line for line in zombie.text.splitlines() if "Fenced" in line]
    assert len(told) == 1, zombie.text
    assert "Traceback" not in zombie.text
    assert snapshot(home) == before
    again = home.mm(*BACKFILL)
    assert (again.code, "nothing changed" in again.text) == (0, True), again.text
    published(home.store, TEXT).assert_like(expected)
    for keys in cached(home.store).values():
        assert sorted(set(keys)) == keys or name == "a checkpoint"


def snapshot(home: Home) -> dict[str, bytes | int]:
    """The pins, and the manifests of the stage tables: what decides what anyone reads."""
    root = Path(home.store)
    pins = {str(path): path.read_bytes() for path in root.glob("registry/pins/**/*.json")}
    return {**pins, **{str(path): len(list(path.iterdir())) for path in root.glob("stages/**/_versions")}}
