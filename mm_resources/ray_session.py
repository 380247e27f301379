"""Ray Data as the distributed executor of kernels; only this module and `ray_nodes` import ray."""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import select
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import asdict, fields, replace
from functools import cache
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from mm_embed_kernels.errors import UserError
from mm_embed_kernels.identity import environment_digest
from mm_embed_kernels.isolated import BATCH_SECONDS, Isolated
from mm_embed_kernels.kernel import Kernel, Resources, Stage
from mm_resources.environment import Model, model_of
from mm_resources.metering import Usage, count, on_gpus, so_far
from mm_resources.ray_nodes import require_nodes

if TYPE_CHECKING:
    import psutil

    from mm_embed_kernels.embedders import Embedder
    from mm_embed_kernels.transcribers import Transcriber
    from mm_resources.store import Store

# Rows handed to Ray at once: bounds what lies in the object store, amortizes the actors' model loading.
WAVE_ROWS = 200_000
# A stuck pipeline is reported after this, not after Ray's 30 minutes.
NO_PROGRESS_SECONDS = 300

_log = logging.getLogger(__name__)


class RaySession:
    """At most one Ray connection, started at first use, shut down only if it was started here.

    Args:
        address: of an existing cluster; "" starts a local one.
        num_cpus: CPUs of a local cluster; None takes those that this process may use.
        object_store_bytes: size of a local cluster's object store.
    """

    def __init__(self, address: str = "", num_cpus: int | None = None, object_store_bytes: int = 512 << 20) -> None:
        self.address, self.object_store_bytes = address, object_store_bytes
        self.num_cpus = num_cpus or len(os.sched_getaffinity(0))
        self.started = False
        self._closed = threading.Event()
        self._fit: set[tuple[str, tuple[Model, ...]]] = set()

    def start(self) -> None:
        """Connect, or start a local cluster with explicit limits; from any thread."""
        if not self.started:
            _lasting(self._connect)

    def require(self, store: Store, models: Iterable[Embedder | Transcriber] = ()) -> None:
        """See that every node of a cluster that was not started here can do this process's work, with these models.

        Raises:
            UserError: in one line; see `mm_resources.ray_nodes.require_nodes`.
        """
        self.start()
        asked = (store.root, tuple(model_of(model) for model in models))
        if self.address and asked not in self._fit:
            require_nodes(store, asked[1])
            self._fit.add(asked)

    def _connect(self) -> None:
        if self.started:
            return
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        # Ray starts its processes by fork and immediate exec, which is safe beside Lance's threads.
        warnings.filterwarnings("ignore", message="lance(db)? (is not fork-safe|fork support)")
        import ray

        if ray.is_initialized():
            return
        try:
            if self.address:
                ray.init(address=self.address, log_to_driver=False, logging_level="ERROR")
            else:
                ray.init(
                    address="local",  # and not a cluster that somebody has started on this machine
                    num_cpus=self.num_cpus,
                    object_store_memory=self.object_store_bytes,
                    include_dashboard=False,
                    log_to_driver=False,
                    logging_level="ERROR",
                )
                self._closed = threading.Event()
                threading.Thread(target=_guard, args=(_raylet(), self._closed), daemon=True).start()
        except (ConnectionError, RuntimeError) as error:
            if not self.address:
                raise
            raise _refused(self.address, error) from error
        self.started = True

    def close(self) -> None:
        if self.started:
            import ray

            self.started = False
            self._closed.set()
            ray.shutdown()

    def run(self, kernel: Kernel, blocks: Iterator[pa.Table]) -> Iterator[pa.Table]:
        """Result tables of the kernel, in any order, as they are finished.

        Each stage becomes one pool of actors that set up once; blocks of requests flow through the pools. A block of which an actor
        dies, or that no actor finishes, is left out by Ray; its rows go through once more, in processes that may die.
        """
        self.start()
        stages = kernel.stages()
        for stage in stages:
            # An actor is one of several on its machine.
            stage.limits = replace(stage.limits, workers=1) if stage.limits else None
        rows = stages[0].resources.batch_rows
        while wave := list(itertools.islice(blocks, max(1, WAVE_ROWS // rows))):
            answered: set[str] = set()
            for table in map(self._counted, _flow(stages, wave, may_lose=True)):
                answered.update(table["key"].to_pylist())
                yield table
            missing = [block.filter(pc.invert(pc.is_in(block["key"], pa.array(answered, pa.string())))) for block in wave]
            if lost := [block for block in missing if block.num_rows]:
                _log.warning(f"{kernel.name}: {sum(block.num_rows for block in lost)} rows were lost with their actor; each is tried alone")
                yield from map(self._counted, _flow([Isolated(stage, BATCH_SECONDS) for stage in stages], lost, may_lose=False))

    def _counted(self, table: pa.Table) -> pa.Table:
        """The results without what the workers used for them, which is counted as this process's."""
        used = _usage(table)
        # The workers of a cluster that was started here are descendants of this process, whose CPU seconds are seen.
        count(**{**asdict(used), "cpu_seconds": used.cpu_seconds if self.address else 0.0})
        return table.drop([_USED])


def _flow(stages: Sequence[Stage], blocks: list[pa.Table], may_lose: bool) -> Iterator[pa.Table]:
    """Blocks through one pool of actors for each stage.

    Args:
        may_lose: whether a batch that fails as a whole is left out; else it ends the run, and each row is a batch.
    """
    import ray
    from ray.data import ActorPoolStrategy, DataContext
    from ray.data.exceptions import ExecutionTimeoutError

    logging.getLogger("ray.data").setLevel(logging.CRITICAL if may_lose else logging.ERROR)  # set by the import above to INFO
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.max_errored_blocks = -1 if may_lose else 0
    # A row alone may take as long as its model takes to load and to be found hanging, in each stage.
    context.execution_no_progress_timeout_s = NO_PROGRESS_SECONDS if may_lose else NO_PROGRESS_SECONDS + 2 * BATCH_SECONDS * len(stages)
    share = fitting_share([stage.resources for stage in stages], ray.cluster_resources().get("CPU", 1.0))
    data: Any = ray.data.from_arrow(blocks)
    with warnings.catch_warnings():
        # Ray 2.60 wants every option of an actor by a name of its own, and has none yet for how often it may restart.
        warnings.filterwarnings("ignore", message="`ray_remote_args` is deprecated")
        for stage in stages:
            needs = stage.resources
            data = data.map_batches(
                _Actor,
                fn_constructor_args=(stage, environment_digest()),
                batch_format="pyarrow",
                batch_size=needs.batch_rows if may_lose else 1,
                compute=ActorPoolStrategy(size=needs.actors),
                num_cpus=share(needs.num_cpus),
                num_gpus=needs.num_gpus or None,
                # By default a block that kills its actor is tried for ever. Once again is for those that waited behind it.
                # Ray tells the terminal that the arguments of actors that may restart lie in the object store (ray#53727):
                # Ray Data puts its own there, small as ours are, and holds them as long as the pool lives.
                max_restarts=-1,
                max_task_retries=1,
            )
    try:
        yield from data.iter_batches(batch_format="pyarrow", batch_size=None, prefetch_batches=1)
    except ExecutionTimeoutError:
        if not may_lose:
            raise


def _refused(address: str, error: Exception) -> UserError:
    """Why there is no connection to a cluster, and what to do. Ray says it in the cause, if at all."""
    told = " ".join(f"{error} {error.__cause__ or ''}".split())
    if "Version mismatch" in told:
        return UserError(f"the Ray cluster at {address} runs another Ray or Python: {told}")
    if "No node info found" in told:
        return UserError(
            f"no node of the Ray cluster at {address} runs on this machine, and a driver speaks through one; start one that takes "
            f"no work: ray start --address={address} --num-cpus=0"
        )
    return UserError(f"no Ray cluster answers at {address}: {told}")


@cache
def _starter() -> SimpleQueue[tuple[Future[None], Callable[[], None]]]:
    """The thread that starts Ray's processes, which lives as long as this process.

    They ask to die with their parent, and Linux takes that to be the thread that started them (prctl(2),
    PR_SET_PDEATHSIG): started in a thread of Lance's writer or of DuckDB they would be gone with it.
    """
    asked: SimpleQueue[tuple[Future[None], Callable[[], None]]] = SimpleQueue()

    def serve() -> None:
        while True:
            done, call = asked.get()
            try:
                done.set_result(call())
            except BaseException as error:  # noqa: BLE001 - raised where it was asked for
                done.set_exception(error)

    threading.Thread(target=serve, name="ray-starter", daemon=True).start()
    return asked


def _lasting(call: Callable[[], None]) -> None:
    """Call in the lasting thread, and wait for it."""
    done: Future[None] = Future()
    _starter().put((done, call))
    done.result()


def _raylet() -> psutil.Process:
    """The node process of the local cluster that this process has just started."""
    import psutil

    # The latest: one of an earlier session may not be gone yet.
    return max((process for process in psutil.Process().children() if process.name() == "raylet"), key=psutil.Process.create_time)


def _guard(raylet: psutil.Process, closed: threading.Event) -> None:
    """End this process, in one line, when its raylet dies: Ray would end it a minute later, with a hundred lines and
    no word of what to do, and offers no exception."""
    import psutil

    try:
        gone = os.pidfd_open(raylet.pid)
    except ProcessLookupError:
        pass
    else:
        select.select([gone], [], [])
        os.close(gone)
    if not closed.is_set():
        line = f"error: Ray's node process (raylet {raylet.pid}) was killed or ran out of memory; the same command goes on where it ended"
        os.write(2, f"\n{line}\n".encode())
        for process in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        os._exit(1)


def fitting_share(needs: list[Resources], available: float) -> Callable[[float], float]:
    """What an actor asks for, so that the pools of all stages fit side by side: a pool that cannot start stalls the rest.

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


# What a batch has cost so far travels with it, in its first row.
_USED = "_used"
_USAGE = pa.struct([(item.name, pa.float64() if item.name.endswith("_seconds") else pa.int64()) for item in fields(Usage)])


def _usage(table: pa.Table) -> Usage:
    """What the rows of a table say was used for them."""
    return sum((Usage(**used) for used in table[_USED].drop_null().to_pylist()), Usage())


class _Actor:
    """A stage inside a Ray worker."""

    def __init__(self, stage: Stage, environment: str) -> None:
        self.before = so_far()
        if environment_digest() != environment:
            raise UserError("driver and Ray worker have different Python or library versions; install the same lock on both")
        stage.setup()
        self.stage = stage

    def __call__(self, batch: pa.Table) -> pa.Table:
        earlier = Usage()
        if _USED in batch.column_names:
            earlier, batch = _usage(batch), batch.drop([_USED])
        with on_gpus(self.stage.resources.num_gpus):
            table = self.stage.run(batch)
        before, self.before = self.before, so_far()
        used = asdict(earlier + self.before - before)
        return table.append_column(_USED, pa.array([used, *[None] * table.num_rows][: table.num_rows], _USAGE))
