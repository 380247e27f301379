"""Run kernels: anti-join with the cache, compute the misses, commit checkpoints."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import pyarrow as pa

from mm_embed_kernels import sql
from mm_embed_kernels.embedders import Embedder
from mm_embed_kernels.extras import is_installed
from mm_embed_kernels.kernels.base import Kernel, Stage
from mm_embed_kernels.kernels.isolated_stage import IsolatedStage, close_models
from mm_embed_kernels.transcribers import Transcriber
from mm_resources.compute.cache import CacheSpace, ComputeCache
from mm_resources.compute.cache_damage import drop_damaged_rows
from mm_resources.compute.prefetch import Prefetcher
from mm_resources.compute.progress import report
from mm_resources.compute.ray_session import RaySession
from mm_resources.compute.retry_policy import RETRYABLE, Backoff, RetryPolicy, within_run
from mm_resources.metering import ZERO, Usage, count_gpu_time, usage_so_far
from mm_resources.storage.spool import TableSpool
from mm_resources.traces import add_attributes, trace_span

CHECKPOINT_SECONDS = 20.0
CHECKPOINT_BYTES = 64 << 20
# Unload a model after a run of this length, seconds: reloading it is cheap by comparison, and the joins that
# follow need the memory.
LONG_SECONDS = 60.0


@dataclass(frozen=True)
class ComputeReport:
    """Counts of one call of `KernelRunner.run`; rows are requests, distinct by key."""

    kernel: str
    fingerprint: str
    mode: str
    computed: int
    reused: int
    failed: int
    checkpoints: int
    seconds: float
    usage: Usage = ZERO


class KernelRunner:
    """Runs kernels through the cache.

    Args:
        cache: cache of results.
        ray: the session to use for large work; None computes everything inline.
        mode: ``auto`` (by estimate and by what Ray could gain), ``inline`` or ``ray``.
        inline_seconds: estimated work below which starting Ray would cost more than it gains.
        backoff: how transient causes are tried again.
    """

    def __init__(
        self,
        cache: ComputeCache,
        ray: RaySession | None = None,
        mode: str = "auto",
        inline_seconds: float = 10.0,
        backoff: Backoff = Backoff(),
    ) -> None:
        self.cache, self.ray, self.mode, self.inline_seconds, self.backoff = (
            cache,
            ray,
            mode,
            inline_seconds,
            backoff,
        )

    def run(
        self,
        kernel: Kernel,
        requests: pa.RecordBatchReader | pa.Table,
        log: logging.Logger | None = None,
        retries: RetryPolicy = RETRYABLE,
    ) -> ComputeReport:
        """Compute the requests that the cache lacks (columns: ``key`` and what the kernel's stages read).

        Results are committed in checkpoints: after a kill, the same call resumes.
        Failures of a transient cause are tried again, all together after each pause.

        Args:
            retries: which earlier failures are computed again.
        """
        with trace_span(f"kernel {kernel.name}", fingerprint=kernel.fingerprint) as span:
            found = self._run(kernel, requests, log, retries)
            counts = {name: getattr(found, name) for name in ("mode", "computed", "reused", "failed")}
            add_attributes(span, **counts, checkpoints=found.checkpoints)
            return found

    def _run(
        self,
        kernel: Kernel,
        requests: pa.RecordBatchReader | pa.Table,
        log: logging.Logger | None,
        retries: RetryPolicy,
    ) -> ComputeReport:
        began, before = time.perf_counter(), usage_so_far()
        space = self.cache.space(kernel)
        numbered = _number_requests(requests)
        drop_damaged_rows(space.uri, numbered.reader(["key"]), log)
        wanted, misses = _list_misses(space, numbered, retries, kernel.order)
        missing = misses.rows
        mode = self._choose(kernel, missing)
        failed, checkpoints = self._compute(space, kernel, misses, mode, log)
        for tries in range(1, self.backoff.attempts if failed else 1):
            _, late = spool_misses(space, _drop_history(misses), within_run(), kernel.order)
            if late.rows == 0:
                break
            time.sleep(self.backoff.pause(tries))
            found, more = self._compute(space, kernel, late, self._choose(kernel, late.rows), log)
            failed, checkpoints, misses = failed - late.rows + found, checkpoints + more, late
        seconds = time.perf_counter() - began
        if seconds > LONG_SECONDS:
            close_models()
        used = usage_so_far() - before
        return ComputeReport(
            kernel.name,
            kernel.fingerprint,
            mode,
            missing,
            wanted - missing,
            failed,
            checkpoints,
            seconds,
            used,
        )

    def _compute(
        self, space: CacheSpace, kernel: Kernel, misses: TableSpool, mode: str, log: logging.Logger | None
    ) -> tuple[int, int]:
        """Compute the misses once; return (failed rows, checkpoints)."""
        if misses.rows == 0:
            return 0, 0
        blocks = _blocks(misses, kernel)
        found = run_inline(kernel, blocks) if mode == "inline" else self._session(kernel).run(kernel, blocks)
        progress = _Progress(kernel.name, misses.rows, log)
        history = [_history(misses, name) for name in _HISTORY]
        done = self._checkpoint(space, kernel, found, history, progress)
        if progress.done != misses.rows:
            raise RuntimeError(f"{kernel.name}: {misses.rows} rows went in, {progress.done} came out")
        return done

    def count_missing(self, kernel: Kernel, requests: pa.RecordBatchReader | pa.Table) -> tuple[int, int]:
        """Return (requests distinct by key, those that are not in the cache) without computing anything."""
        wanted, misses = spool_misses(self.cache.space(kernel), requests)
        return wanted, misses.rows

    def _choose(self, kernel: Kernel, missing: int) -> str:
        if kernel.driver_only and self._on_cluster:
            return "inline"
        if self.mode != "auto":
            return self.mode
        # Without Ray stages already run concurrently; Ray gains only where a stage has several actors.
        gains = self.ray is not None and (
            self._on_cluster
            or (any(stage.resources.actors > 1 for stage in kernel.stages()) and is_installed("ray"))
        )
        return "ray" if gains and missing * kernel.seconds_per_row > self.inline_seconds else "inline"

    @property
    def _on_cluster(self) -> bool:
        """Return whether Ray's workers may be on other machines."""
        return self.ray is not None and bool(self.ray.address)

    def require_workers(self, models: Iterable[Embedder | Transcriber]) -> None:
        """Check, before anything is computed, that the machines of a cluster can do this one's work.

        Raises:
            UserError: in one line; see `RaySession.require`.
        """
        if self.ray is not None and self._on_cluster and self.mode != "inline":
            self.ray.require(self.cache.store, models)

    def _session(self, kernel: Kernel) -> RaySession:
        if self.ray is None:
            raise RuntimeError("mode 'ray' needs a Ray session")
        self.ray.require(self.cache.store, kernel.models)
        return self.ray

    def _checkpoint(
        self,
        space: CacheSpace,
        kernel: Kernel,
        found: Iterator[pa.Table],
        history: list[dict[str, int]],
        progress: _Progress,
    ) -> tuple[int, int]:
        held: list[pa.Table] = []
        failed = checkpoints = rows = size = 0
        last = time.perf_counter()
        for table in found:
            held.append(table)
            rows, size = rows + table.num_rows, size + table.nbytes
            failed += table["status"].to_pylist().count("failed")
            late = time.perf_counter() - last > CHECKPOINT_SECONDS
            if rows >= kernel.checkpoint_rows or size >= CHECKPOINT_BYTES or late:
                space.append(pa.concat_tables(held), *history)
                held, rows, size, last, checkpoints = [], 0, 0, time.perf_counter(), checkpoints + 1
            progress.add(table.num_rows)
        if held:
            space.append(pa.concat_tables(held), *history)
            checkpoints += 1
        return failed, checkpoints


_MISSED_ROWS = """
SELECT r.* EXCLUDE (request), m.attempt, m.runs FROM requests r JOIN misses m USING (request) ORDER BY {order}
"""
# The earlier tries of a key, and the runs in which the machine may have been the cause of its failure.
_HISTORY = ("attempt", "runs")
_MISS_SCHEMA = pa.schema([("request", pa.int64()), *((name, pa.int32()) for name in _HISTORY)])


def spool_misses(
    space: CacheSpace,
    requests: pa.RecordBatchReader | pa.Table,
    retries: RetryPolicy = RETRYABLE,
    order: str = Kernel.order,
) -> tuple[int, TableSpool]:
    """Count the requests that are distinct by key, and spool the misses among them to disk."""
    return _list_misses(space, _number_requests(requests), retries, order)


def _list_misses(
    space: CacheSpace, numbered: TableSpool, retries: RetryPolicy, order: str
) -> tuple[int, TableSpool]:
    misses, wanted = TableSpool(_MISS_SCHEMA), 0
    for batch in space.misses(numbered, retries):
        wanted += batch.num_rows
        misses.add(
            pa.Table.from_batches([batch])
            .filter(batch["missing"])
            .select(_MISS_SCHEMA.names)
            .cast(_MISS_SCHEMA)
        )
    if misses.rows == 0:
        return wanted, misses
    with sql.query(
        _MISSED_ROWS.format(order=order), requests=numbered.reader(), misses=misses.reader()
    ) as found:
        return wanted, TableSpool.of(found)


def _number_requests(requests: pa.RecordBatchReader | pa.Table) -> TableSpool:
    """Spool the requests, and number them in the column ``request``."""
    reader = requests.to_reader() if isinstance(requests, pa.Table) else requests
    spool = TableSpool(reader.schema.append(pa.field("request", pa.int64())))
    for batch in reader:
        numbers = pa.array(range(spool.rows, spool.rows + batch.num_rows), pa.int64())
        spool.add(batch.append_column("request", numbers))
    return spool


def _drop_history(misses: TableSpool) -> pa.RecordBatchReader:
    return misses.reader([name for name in misses.schema.names if name not in _HISTORY])


def _blocks(misses: TableSpool, kernel: Kernel) -> Iterator[pa.Table]:
    """The misses in blocks of the first stage's batch size."""
    size = kernel.stages()[0].resources.batch_rows
    for batch in misses.reader():
        table = pa.Table.from_batches([batch])
        for start in range(0, table.num_rows, size):
            yield table.slice(start, size)


def _history(misses: TableSpool, name: str) -> dict[str, int]:
    """Return one of `_HISTORY` by key, where it is not 0."""
    found = sql.fetch(f"SELECT key, {name} FROM misses WHERE {name} > 0", misses=misses.reader())
    return dict(zip(found["key"].to_pylist(), found[name].to_pylist(), strict=True))


def run_inline(kernel: Kernel, blocks: Iterator[pa.Table]) -> Iterator[pa.Table]:
    """Run a kernel's stages block by block: models run in child processes, other stages in this one.

    With a model, stages run concurrently: the next block is decoded while the last results are stored.
    """
    stages, found = kernel.stages(), blocks
    for stage in stages:
        found = _apply_stage(IsolatedStage(stage) if stage.infers else stage, found)
        if any(other.infers for other in stages):
            found = Prefetcher(found, f"mm-{kernel.name}")
    return found


def _apply_stage(stage: Stage, blocks: Iterator[pa.Table]) -> Iterator[pa.Table]:
    stage.setup()
    for block in blocks:
        with count_gpu_time(stage.resources.num_gpus):
            found = stage.run(block)
        yield found


class _Progress:
    """Log rate and time left every few seconds."""

    def __init__(self, name: str, total: int, log: logging.Logger | None) -> None:
        self.name, self.total, self.log, self.done = name, total, log, 0
        self._began = self._last = time.perf_counter()

    def add(self, rows: int) -> None:
        self.done += rows
        report(self.name, self.done, self.total)
        now = time.perf_counter()
        if self.log is None or now - self._last < 5:
            return
        self._last = now
        rate = self.done / (now - self._began)
        self.log.info(
            f"{self.name}: {self.done:,} of {self.total:,}, {rate:,.0f}/s, "
            f"{(self.total - self.done) / rate:,.0f} s left"
        )
