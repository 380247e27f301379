"""The Dagster home: open its instance, by the package's dagster.yaml; list and close runs of this host."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import dagster as dg

from mm_assets.cells.partitions import DATASET_VERSION
from mm_assets.dagster_private import PARTITION_TAG, open_home
from mm_resources.cell import Cell
from mm_resources.settings import Settings
from mm_resources.storage.permissions import make_folders

# The process that executes a run, see `process_tag`.
PROCESS_TAG = "mm/process"
_UNFINISHED = (
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
)
# Configuration of a home that has none: pools, limits of runs, monitoring. Part of the package.
SHIPPED_YAML = Path(__file__).parents[1] / "dagster.yaml"


def open_instance(settings: Settings) -> dg.DagsterInstance:
    """Open the instance of the home, and export its settings to the environment.

    A lock serializes the first use: Dagster creates its SQLite files then, and fails where two processes do
    so at once.
    """
    from filelock import FileLock

    home = settings.dagster_home
    make_folders(home)
    os.environ.update(settings.exports())
    with FileLock(home / ".mm.lock"):
        config = home / "dagster.yaml"
        if not config.exists():
            config.write_text(SHIPPED_YAML.read_text("utf-8"), "utf-8")
        instance = open_home(home)
        instance.get_runs(limit=1)  # creates the tables while the lock is held
        instance.get_dynamic_partitions(DATASET_VERSION)
    return instance


def process_tag() -> str:
    """Return host, process id and start of this process: unique where the id is reused."""
    return f"{socket.gethostname()}:{os.getpid()}:{_start_of(os.getpid())}"


def _start_of(pid: int, by_clock: bool = False) -> str:
    """Return the start of a process; "" where there is none.

    By the kernel's own count since the boot: a time of day would change for a living process when the clock
    is set.

    Args:
        by_clock: whether to return the time of day, which earlier versions recorded.
    """
    import psutil

    try:
        if by_clock or not sys.platform.startswith("linux"):
            return f"{psutil.Process(pid).create_time():.0f}"
        boot = Path("/proc/sys/kernel/random/boot_id").read_text("ascii")[:8]
        # The name of the program, in parentheses, may hold anything.
        state = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2]
        return f"{boot}-{state.split()[19]}"
    except (psutil.NoSuchProcess, FileNotFoundError, ProcessLookupError):
        return ""


def close_dead_runs(instance: dg.DagsterInstance) -> list[str]:
    """Mark runs as failed whose process on this host is gone (killed, or lost to a reboot).

    Returns:
        Their run ids.
    """
    closed = []
    for run, pid, alive in _local_runs(instance):
        if not alive:
            instance.report_run_failed(
                run, f"its process {pid} is gone; run the same command again to resume"
            )
            closed.append(run.run_id)
    return closed


def active_runs(instance: dg.DagsterInstance, partition: str = "") -> str:
    """Describe the runs of this host that are processing a partition, by default any; "" for none.

    Advisory: it does not exclude concurrent runs. Fences let one of them publish.
    """
    tags = {PARTITION_TAG: partition} if partition else None
    described = [
        f"run {run.run_id[:8]} (process {pid})" for run, pid, alive in _local_runs(instance, tags) if alive
    ]
    return ", ".join(described)


def is_in_progress(instance: dg.DagsterInstance, cell: Cell) -> bool:
    """Return whether a run of any host waits for a cell or processes it; one that has died here does not."""
    tags = {PARTITION_TAG: cell.partition_key}
    dead = {run.run_id for run, _, alive in _local_runs(instance, tags) if not alive}
    unfinished = instance.get_runs(filters=dg.RunsFilter(statuses=list(_UNFINISHED), tags=tags))
    return any(run.run_id not in dead for run in unfinished)


def _local_runs(
    instance: dg.DagsterInstance, tags: Mapping[str, str] | None = None
) -> Iterator[tuple[dg.DagsterRun, int, bool]]:
    """Yield the runs in progress on this host: run, process id, and whether the process is alive."""
    statuses = [dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.STARTING]
    for run in instance.get_runs(filters=dg.RunsFilter(statuses=statuses, tags=tags)):
        host, _, rest = run.tags.get(PROCESS_TAG, "").partition(":")
        pid, _, started = rest.partition(":")
        if host != socket.gethostname() or not pid:
            continue
        yield run, int(pid), _start_of(int(pid), started.isdigit()) == started
