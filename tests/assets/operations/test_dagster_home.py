"""Runs of processes that are alive, and of those that are gone."""

from __future__ import annotations

import subprocess
import sys

import dagster as dg
import psutil
import pytest

from mm_assets.operations.dagster_home import PROCESS_TAG, active_runs, close_dead_runs, process_tag


def begin(instance: dg.DagsterInstance, tag: str) -> str:
    """Return the id of a run in progress."""
    tags = {PROCESS_TAG: tag}
    run = instance.create_run_for_job(_nothing, tags=tags, status=dg.DagsterRunStatus.STARTED)
    return run.run_id


@dg.job
def _nothing() -> None:
    """A job without ops."""


def test_a_clock_that_is_set_declares_nobody_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    """The time of day at which a process began changes with the clock; its start since the boot does not."""
    with dg.DagsterInstance.ephemeral() as instance:
        began = begin(instance, process_tag())
        moved = psutil.boot_time() + 3_600
        monkeypatch.setattr(psutil._pslinux, "boot_time", lambda: moved)
        assert began[:8] in active_runs(instance)
        assert close_dead_runs(instance) == []


def test_processes_that_are_gone_or_others(monkeypatch: pytest.MonkeyPatch) -> None:
    host, pid, start = process_tag().split(":")
    gone = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True
    )
    with dg.DagsterInstance.ephemeral() as instance:
        dead = begin(instance, f"{host}:{int(gone.stdout)}:{start}")
        reused = begin(instance, f"{host}:{pid}:{start}0")
        before = begin(instance, f"{host}:{pid}:{psutil.Process().create_time():.0f}")
        elsewhere = begin(instance, f"elsewhere:{pid}:{start}")
        assert sorted(close_dead_runs(instance)) == sorted([dead, reused])
        assert before[:8] in active_runs(instance), "of an earlier version"
        assert elsewhere[:8] not in active_runs(instance)
