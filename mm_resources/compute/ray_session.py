"""The connection to Ray, and the execution of kernels on it."""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import select
import sysconfig
import threading
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from mm_embed_kernels.embedders import Embedder
from mm_embed_kernels.errors import UserError
from mm_embed_kernels.extras import explain_missing
from mm_embed_kernels.inference.runtime import cpu_count
from mm_embed_kernels.kernels.base import Kernel
from mm_embed_kernels.kernels.isolated_stage import BATCH_SECONDS, IsolatedStage
from mm_embed_kernels.sandbox.lasting_thread import LastingThread
from mm_embed_kernels.transcribers import Transcriber
from mm_resources.compute.environment import Model, model_of
from mm_resources.compute.ray_errors import ConnectionCause, connection_failure
from mm_resources.compute.ray_nodes import require_nodes
from mm_resources.compute.ray_pipeline import USED, stream_blocks, usage_of
from mm_resources.metering import count
from mm_resources.storage.process import configure_process
from mm_resources.storage.store import Store

if TYPE_CHECKING:
    import psutil

# Rows handed to Ray at once: bounds the size of the object store, amortizes the actors' model loading.
WAVE_ROWS = 200_000

# Ray's processes ask to die with the thread that started them.
_starter = LastingThread("ray-starter")
_log = logging.getLogger(__name__)


class RaySession:
    """At most one Ray connection, started at first use, shut down only if it was started here.

    Args:
        address: of an existing cluster; "" starts a local one.
        num_cpus: CPUs of a local cluster; None takes those that this process may use.
        object_store_bytes: size of a local cluster's object store.
    """

    def __init__(
        self, address: str = "", num_cpus: int | None = None, object_store_bytes: int = 512 << 20
    ) -> None:
        self.address, self.object_store_bytes = address, object_store_bytes
        self.num_cpus = num_cpus or cpu_count()
        self.started = False
        self._closed = threading.Event()
        self._fit: set[tuple[str, tuple[Model, ...]]] = set()

    def start(self) -> None:
        """Connect, or start a local cluster with explicit limits; from any thread."""
        if not self.started:
            _starter.call(self._connect)

    def require(self, store: Store, models: Iterable[Embedder | Transcriber] = ()) -> None:
        """Check that every node of an existing cluster can do this process's work with these models.

        Raises:
            UserError: in one line; see `mm_resources.compute.ray_nodes.require_nodes`.
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
        with explain_missing("work on Ray"):
            import ray

        if ray.is_initialized():
            return
        try:
            if self.address:
                _start(address=self.address, log_to_driver=False, logging_level="ERROR")
            else:
                _start(
                    address="local",  # not a cluster that another process has started on this machine
                    num_cpus=self.num_cpus,
                    object_store_memory=self.object_store_bytes,
                    include_dashboard=False,
                    log_to_driver=False,
                    logging_level="ERROR",
                )
                self._closed = threading.Event()
                threading.Thread(
                    target=_exit_with_raylet, args=(_raylet(), self._closed), daemon=True
                ).start()
        except (ConnectionError, RuntimeError, ray.exceptions.AuthenticationError) as error:
            if not self.address:
                raise
            raise _connection_error(self.address, error) from error
        self.started = True

    def close(self) -> None:
        if self.started:
            import ray

            self.started = False
            self._closed.set()
            ray.shutdown()

    def run(self, kernel: Kernel, blocks: Iterator[pa.Table]) -> Iterator[pa.Table]:
        """Result tables of the kernel, in any order, as they are finished.

        Each stage becomes one pool of actors that set up once; blocks of requests flow through the pools.
        Ray leaves out a block whose actor dies, or that no actor finishes; its rows run again one by one in
        child processes.
        """
        self.start()
        stages = kernel.stages()
        for stage in stages:
            # An actor is one of several on its machine.
            stage.limits = replace(stage.limits, workers=1) if stage.limits else None
        rows = stages[0].resources.batch_rows
        while wave := list(itertools.islice(blocks, max(1, WAVE_ROWS // rows))):
            answered: set[str] = set()
            for table in map(self._add_usage, stream_blocks(stages, wave, skip_failed_batches=True)):
                answered.update(table["key"].to_pylist())
                yield table
            missing = [
                block.filter(pc.invert(pc.is_in(block["key"], pa.array(answered, pa.string()))))
                for block in wave
            ]
            if lost := [block for block in missing if block.num_rows]:
                _log.warning(
                    f"{kernel.name}: {sum(block.num_rows for block in lost)} rows lost with their actor; "
                    "each is tried alone"
                )
                yield from map(
                    self._add_usage,
                    stream_blocks(
                        [IsolatedStage(stage, BATCH_SECONDS, configure_process) for stage in stages],
                        lost,
                        skip_failed_batches=False,
                    ),
                )

    def _add_usage(self, table: pa.Table) -> pa.Table:
        """Remove the workers' usage from the results and count it for this process."""
        used = usage_of(table)
        # The workers of a cluster that was started here are descendants of this process, whose CPU seconds
        # are seen.
        count(**{**asdict(used), "cpu_seconds": used.cpu_seconds if self.address else 0.0})
        return table.drop([USED])


def _connection_error(address: str, error: Exception) -> UserError:
    """Return the error of a failed connection: its cause and what to do."""
    failure = connection_failure(error)
    if failure.cause is ConnectionCause.OTHER_VERSION:
        return UserError(f"the Ray cluster at {address} runs another Ray or Python: {failure.text}")
    if failure.cause is ConnectionCause.NO_LOCAL_NODE:
        return UserError(
            f"no node of the Ray cluster at {address} runs on this machine, and a driver needs one; "
            f"start one that takes no work: ray start --address={address} --num-cpus=0"
        )
    if failure.cause is ConnectionCause.NO_TOKEN:
        return UserError(
            f"the Ray cluster at {address} wants a token that this process does not have; "
            "set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN_PATH to the file with the cluster's token"
        )
    return UserError(f"no Ray cluster answers at {address}: {failure.text}")


def _raylet() -> psutil.Process:
    """The node process of the local cluster that this process has just started."""
    import psutil

    # The latest: one of an earlier session may not be gone yet.
    return max(
        (process for process in psutil.Process().children() if process.name() == "raylet"),
        key=psutil.Process.create_time,
    )


def _start(**options: Any) -> None:
    """Start or join a cluster from a folder that holds nothing of a stranger's.

    Ray puts the folder of its driver first on the path of each worker, also where the driver itself leaves
    that folder out of its own (PYTHONSAFEPATH, as `mm` sets it).
    """
    import ray

    leaves = os.environ.get("PYTHONSAFEPATH")
    with contextlib.chdir(sysconfig.get_path("stdlib")) if leaves else contextlib.nullcontext():
        ray.init(**options)


def _exit_with_raylet(raylet: psutil.Process, closed: threading.Event) -> None:
    """End this process, with one line, when its raylet dies.

    Ray itself would end the process after a minute, without an exception.
    """
    import psutil

    try:
        gone = os.pidfd_open(raylet.pid)
    except ProcessLookupError:
        pass
    else:
        select.select([gone], [], [])
        os.close(gone)
    if not closed.is_set():
        line = (
            f"error: Ray's node process (raylet {raylet.pid}) was killed or ran out of memory; "
            "run the same command again to resume"
        )
        os.write(2, f"\n{line}\n".encode())
        for process in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        os._exit(1)
