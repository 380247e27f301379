"""The Dagster home: initialised once, with the project's dagster.yaml in force."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import dagster as dg

from mm_assets.partitions import DATASET_VERSION
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
            shipped = Path(__file__).parent.parent / "dagster.yaml"
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
    import psutil

    closed = []
    for run in instance.get_runs(filters=dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.STARTING])):
        host, _, rest = run.tags.get(PROCESS_TAG, "").partition(":")
        pid, _, started = rest.partition(":")
        if host != socket.gethostname() or not pid:
            continue
        try:
            alive = f"{psutil.Process(int(pid)).create_time():.0f}" == started
        except psutil.NoSuchProcess:
            alive = False
        if not alive:
            instance.report_run_failed(run, f"the process {pid} that executed it is gone; the same command goes on where it ended")
            closed.append(run.run_id)
    return closed
