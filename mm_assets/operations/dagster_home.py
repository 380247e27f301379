"""The Dagster home: initialised once, with the project's dagster.yaml in force."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path

import dagster as dg
from dagster._core.storage.tags import PARTITION_NAME_TAG

from mm_assets.cells.partitions import DATASET_VERSION
from mm_resources.settings import Settings

PROCESS_TAG = "mm/process"
_DEFAULT_YAML = "telemetry:\n  enabled: false\n"


def open_instance(settings: Settings) -> dg.DagsterInstance:
    """The instance of the home; safe when several processes come first at once.

    Dagster creates its SQLite files at first use and breaks when two do so together, hence the lock.
    """
    from filelock import FileLock

    home = settings.dagster_home
    home.mkdir(parents=True, exist_ok=True)
    os.environ.update(settings.exports())
    with FileLock(home / ".mm.lock"):
        config = home / "dagster.yaml"
        if not config.exists():
            shipped = Path(__file__).parents[2] / "dagster.yaml"
            config.write_text(shipped.read_text("utf-8") if shipped.is_file() else _DEFAULT_YAML, "utf-8")
        instance = dg.DagsterInstance.get()
        instance.get_runs(limit=1)  # creates the tables while the lock is held
        instance.get_dynamic_partitions(DATASET_VERSION)
    return instance


def process_tag() -> str:
    """Identifies this process beyond the reuse of its number."""
    import psutil

    return f"{socket.gethostname()}:{os.getpid()}:{psutil.Process().create_time():.0f}"


def close_dead_runs(instance: dg.DagsterInstance) -> list[str]:
    """Mark runs as failed whose process on this host is gone (killed, or lost to a reboot); their ids."""
    closed = []
    for run, pid, alive in _runs_here(instance):
        if not alive:
            instance.report_run_failed(
                run, f"the process {pid} that executed it is gone; the same command goes on where it ended"
            )
            closed.append(run.run_id)
    return closed


def at_work(instance: dg.DagsterInstance, partition: str = "") -> str:
    """Who on this host is at work on a partition (by default on any), in words, or "".

    A courtesy, no lock: of two runs that begin at the same moment, or on two hosts, the fences let one publish.
    """
    tags = {PARTITION_NAME_TAG: partition} if partition else None
    found = [
        f"run {run.run_id[:8]} (process {pid})" for run, pid, alive in _runs_here(instance, tags) if alive
    ]
    return ", ".join(found)


def _runs_here(
    instance: dg.DagsterInstance, tags: Mapping[str, str] | None = None
) -> Iterator[tuple[dg.DagsterRun, int, bool]]:
    """Runs in progress whose process is, or was, on this host: the run, the process and whether it still is."""
    import psutil

    statuses = [dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.STARTING]
    for run in instance.get_runs(filters=dg.RunsFilter(statuses=statuses, tags=tags)):
        host, _, rest = run.tags.get(PROCESS_TAG, "").partition(":")
        pid, _, started = rest.partition(":")
        if host != socket.gethostname() or not pid:
            continue
        try:
            yield run, int(pid), f"{psutil.Process(int(pid)).create_time():.0f}" == started
        except psutil.NoSuchProcess:
            yield run, int(pid), False
