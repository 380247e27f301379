"""The one function through which every expensive computation goes: anti-join, compute the misses, checkpoint."""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from mm_embed_kernels import relational
from mm_embed_kernels.isolated import Isolated
from mm_embed_kernels.kernel import Kernel
from mm_resources.cache import CacheSpace, ComputeCache
from mm_resources.progress import report
from mm_resources.ray_session import RaySession

CHECKPOINT_SECONDS = 20.0
CHECKPOINT_BYTES = 64 << 20


@dataclass(frozen=True)
class ComputeReport:
    """What one call of `Compute.run` did; rows are requests, distinct by key."""

    kernel: str
    fingerprint: str
    mode: str
    computed: int
    reused: int
    failed: int
    checkpoints: int
    seconds: float


class Compute:
    """Runs kernels through the cache.

    Args:
        cache: where results live.
        ray: the session to use for large work; None computes everything inline.
        mode: ``auto`` (by estimate), ``inline`` or ``ray``.
        inline_seconds: estimated work below which starting Ray would cost more than it gains.
    """

    def __init__(self, cache: ComputeCache, ray: RaySession | None = None, mode: str = "auto", inline_seconds: float = 10.0) -> None:
        self.cache, self.ray, self.mode, self.inline_seconds = cache, ray, mode, inline_seconds

    def run(self, kernel: Kernel, requests: pa.RecordBatchReader | pa.Table, log: logging.Logger | None = None) -> ComputeReport:
        """Compute what is missing of `requests` (columns: at least ``key`` and what the kernel's stages read).

        Results are committed in checkpoints: after a kill, the same call goes on where the last one ended.
        """
        began = time.perf_counter()
        space = self.cache.space(kernel)
        with tempfile.TemporaryDirectory(prefix="mm-misses-") as folder:
            spool = Path(folder) / "misses.arrow"
            wanted, missing = spool_misses(space, requests, spool)
            mode = self._choose(kernel, missing)
            if missing == 0:
                return ComputeReport(kernel.name, kernel.fingerprint, mode, 0, wanted, 0, 0, time.perf_counter() - began)
            blocks = _blocks(spool, kernel)
            found = run_inline(kernel, blocks) if mode == "inline" else self._session().run(kernel, blocks)
            progress = _Progress(kernel.name, missing, log)
            failed, checkpoints = self._checkpoint(space, kernel, found, _attempts(spool), progress)
        if progress.done != missing:
            raise RuntimeError(f"{kernel.name}: {missing} rows went in, {progress.done} came out")
        seconds = time.perf_counter() - began
        return ComputeReport(kernel.name, kernel.fingerprint, mode, missing, wanted - missing, failed, checkpoints, seconds)

    def missing(self, kernel: Kernel, requests: pa.RecordBatchReader | pa.Table) -> tuple[int, int]:
        """(requests distinct by key, how many of them are not in the cache), without computing anything."""
        with tempfile.TemporaryDirectory(prefix="mm-misses-") as folder:
            return spool_misses(self.cache.space(kernel), requests, Path(folder) / "misses.arrow")

    def _choose(self, kernel: Kernel, missing: int) -> str:
        if self.mode != "auto":
            return self.mode
        return "inline" if self.ray is None or missing * kernel.seconds_per_row <= self.inline_seconds else "ray"

    def _session(self) -> RaySession:
        if self.ray is None:
            raise RuntimeError("mode 'ray' needs a Ray session")
        return self.ray

    def _checkpoint(
        self, space: CacheSpace, kernel: Kernel, found: Iterator[pa.Table], attempts: dict[str, int], progress: _Progress
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
                space.append(pa.concat_tables(held), attempts)
                held, rows, size, last, checkpoints = [], 0, 0, time.perf_counter(), checkpoints + 1
            progress.add(table.num_rows)
        if held:
            space.append(pa.concat_tables(held), attempts)
            checkpoints += 1
        return failed, checkpoints


def spool_misses(space: CacheSpace, requests: pa.RecordBatchReader | pa.Table, path: Path) -> tuple[int, int]:
    """Write the misses to an Arrow file on disk; (requests distinct by key, misses).

    The file is memory-mapped later, so that a cell's misses never lie in memory.
    """
    with tempfile.TemporaryDirectory(prefix="mm-requests-") as folder:
        every = Path(folder) / "requests.arrow"
        with relational.query("SELECT DISTINCT ON (key) * FROM requests", requests=requests) as distinct:
            wanted = spool(distinct, every)
        with (
            pa.memory_map(str(every)) as source,
            pa.ipc.open_stream(source) as stored,
            relational.query(space.misses, requests=stored, cached=space.status()) as reader,
        ):
            return wanted, spool(reader, path)


def spool(reader: pa.RecordBatchReader, path: Path) -> int:
    """Write a stream to an Arrow file on disk; its rows."""
    rows = 0
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, reader.schema) as writer:
        for batch in reader:
            writer.write_batch(batch)
            rows += batch.num_rows
    return rows


def _blocks(spool: Path, kernel: Kernel) -> Iterator[pa.Table]:
    """The misses in blocks of the first stage's batch size."""
    size = kernel.stages()[0].resources.batch_rows
    with pa.memory_map(str(spool)) as source, pa.ipc.open_stream(source) as reader:
        for batch in reader:
            table = pa.Table.from_batches([batch])
            for start in range(0, table.num_rows, size):
                yield table.slice(start, size)


def _attempts(spool: Path) -> dict[str, int]:
    """Earlier tries of the keys that were tried before."""
    with pa.memory_map(str(spool)) as source, pa.ipc.open_stream(source) as reader:
        found = relational.fetch("SELECT key, attempt FROM misses WHERE attempt > 0", misses=reader)
    return dict(zip(found["key"].to_pylist(), found["attempt"].to_pylist(), strict=True))


def run_inline(kernel: Kernel, blocks: Iterator[pa.Table]) -> Iterator[pa.Table]:
    """The kernel's stages block by block, in this process but for its models, which may die of what they are given."""
    stages = [Isolated(stage) if stage.infers else stage for stage in kernel.stages()]
    for stage in stages:
        stage.setup()
    for block in blocks:
        for stage in stages:
            block = stage.run(block)
        yield block


class _Progress:
    """Logs rate and time left every few seconds."""

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
        self.log.info(f"{self.name}: {self.done:,} of {self.total:,}, {rate:,.0f}/s, {(self.total - self.done) / rate:,.0f} s left")
