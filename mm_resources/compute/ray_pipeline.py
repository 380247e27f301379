"""Kernels as Ray Data pipelines: one pool of actors for each stage."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, fields
from typing import Any

import pyarrow as pa

from mm_embed_kernels.errors import UserError
from mm_embed_kernels.identity import environment_digest
from mm_embed_kernels.kernels.base import Resources, Stage
from mm_embed_kernels.kernels.isolated_stage import BATCH_SECONDS, WALL_SECONDS
from mm_resources.metering import Usage, count_gpu_time, usage_so_far
from mm_resources.storage.process import configure_process

# A pipeline in which no block ends for so long is given up, in place of Ray's 30 minutes; its rows are tried
# one by one. It is time on the clock: a block of a busy machine may take several times as long as alone.
NO_PROGRESS_SECONDS = 900


def stream_blocks(
    stages: Sequence[Stage], blocks: list[pa.Table], skip_failed_batches: bool
) -> Iterator[pa.Table]:
    """Stream blocks through one pool of actors for each stage.

    Args:
        skip_failed_batches: whether a batch that fails as a whole is left out. If not, it ends the run, and
            each row is a batch.
    """
    import ray
    from ray.data import ActorPoolStrategy, DataContext
    from ray.data.exceptions import ExecutionTimeoutError

    # The import above has set it to INFO.
    logging.getLogger("ray.data").setLevel(logging.CRITICAL if skip_failed_batches else logging.ERROR)
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.max_errored_blocks = -1 if skip_failed_batches else 0
    # A row alone may take as long as its model takes to load and to be found hanging, in each stage, twice
    # since it is tried again; a starved stage ends by itself, and the pipeline is not blamed before.
    alone = NO_PROGRESS_SECONDS + max(2 * WALL_SECONDS, 4 * BATCH_SECONDS * len(stages))
    context.execution_no_progress_timeout_s = NO_PROGRESS_SECONDS if skip_failed_batches else alone
    share = cpu_share([stage.resources for stage in stages], ray.cluster_resources().get("CPU", 1.0))
    data: Any = ray.data.from_arrow(blocks)
    with warnings.catch_warnings():
        # Ray 2.60 wants every option of an actor by a name of its own, and has none yet for how often it may
        # restart.
        warnings.filterwarnings("ignore", message="`ray_remote_args` is deprecated")
        for stage in stages:
            needs = stage.resources
            data = data.map_batches(
                KernelActor,
                fn_constructor_args=(stage, environment_digest()),
                batch_format="pyarrow",
                batch_size=needs.batch_rows if skip_failed_batches else 1,
                compute=ActorPoolStrategy(size=needs.actors),
                num_cpus=share(needs.num_cpus),
                num_gpus=needs.num_gpus or None,
                # By default a block that kills its actor is retried without limit. One retry serves blocks
                # queued behind it. Ray warns that arguments of restartable actors stay in the object store
                # (ray#53727): they are small and live as long as the pool.
                max_restarts=-1,
                max_task_retries=1,
            )
    try:
        yield from data.iter_batches(batch_format="pyarrow", batch_size=None, prefetch_batches=1)
    except ExecutionTimeoutError:
        if not skip_failed_batches:
            raise


def cpu_share(needs: list[Resources], available: float) -> Callable[[float], float]:
    """CPUs for each actor, scaled so that the pools of all stages fit into the cluster together.

    A pool that cannot start would stall the others.

    Args:
        needs: of each stage.
        available: CPUs of the cluster.
    """
    wanted = sum(item.num_cpus * item.actors for item in needs)
    scale = min(1.0, available / wanted) if wanted else 1.0

    def share(cpus: float) -> float:
        scaled = cpus * scale
        # Ray takes fractions below one CPU and whole numbers above, in steps of a ten-thousandth.
        return float(int(scaled)) if scaled >= 1 else int(scaled * 10_000) / 10_000

    return share


# The usage of a batch so far travels with it, in its first row.
USED = "_used"


USAGE = pa.struct(
    [(item.name, pa.float64() if item.name.endswith("_seconds") else pa.int64()) for item in fields(Usage)]
)


def usage_of(table: pa.Table) -> Usage:
    """Sum the usage that the rows of a table carry."""
    return sum((Usage(**used) for used in table[USED].drop_null().to_pylist()), Usage())


class KernelActor:
    """A stage inside a Ray worker."""

    def __init__(self, stage: Stage, environment: str) -> None:
        configure_process()
        self.before = usage_so_far()
        if environment_digest() != environment:
            raise UserError(
                "driver and Ray worker have different Python or library versions; "
                "install the packages of constraints.txt on all nodes"
            )
        stage.setup()
        self.stage = stage

    def __call__(self, batch: pa.Table) -> pa.Table:
        earlier = Usage()
        if USED in batch.column_names:
            earlier, batch = usage_of(batch), batch.drop([USED])
        with count_gpu_time(self.stage.resources.num_gpus):
            table = self.stage.run(batch)
        before, self.before = self.before, usage_so_far()
        used = asdict(earlier + self.before - before)
        return table.append_column(USED, pa.array([used, *[None] * table.num_rows][: table.num_rows], USAGE))
