"""One asset of one cell in one run: what an asset body reads, computes, records and writes through."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from functools import cached_property
from typing import TYPE_CHECKING, Any

import dagster as dg
import pyarrow as pa

from mm_assets.cells.partitions import cell_of
from mm_assets.cells.run_tags import OVERRIDE_TAG, REDRIVE_TAG
from mm_assets.cells.sample_count import SampleCount
from mm_assets.cells.upstream import UpstreamRows
from mm_embed_kernels import contracts, sql
from mm_embed_kernels.contracts import Contract
from mm_embed_kernels.embedders import Embedder
from mm_embed_kernels.kernels.base import Kernel
from mm_embed_kernels.kernels.embed import EmbedKernel
from mm_embed_kernels.modalities import Modality, get
from mm_embed_kernels.spec.dataset_spec import DatasetSpec
from mm_embed_kernels.validation.bounds import Bound, validation_bounds
from mm_resources.catalog import Catalog
from mm_resources.cell import Cell
from mm_resources.compute.cache import CacheSpace, Vectors
from mm_resources.compute.retry_policy import ALL, NONE, RETRYABLE, RetryPolicy
from mm_resources.compute.runner import ComputeReport, KernelRunner
from mm_resources.ledger.cell_snapshot import CellSnapshot
from mm_resources.metering import Meter
from mm_resources.resources import EmbedderResource, embedder_key
from mm_resources.storage.lance_errors import Fenced
from mm_resources.storage.spool import Spill
from mm_resources.tables.failure_events import FailureFilter
from mm_resources.tables.stage_tables import WrittenRows

if TYPE_CHECKING:
    from mm_embed_kernels.kernels.transcribe import TranscribeKernel


class CellRun:
    """Reads upstream rows, computes through the cache, and writes rows that `publication` commits.

    Attributes:
        context: the run's resources and log.
        catalog: the parts of the store.
        snapshot: the cell's stages as they were when the run entered this one.
        reports: what each computation of the stage did.
        samples_written: samples in the written rows; None before `write`, or where the stage has no rows by
            sample.
    """

    def __init__(
        self, context: dg.AssetExecutionContext, asset: str, code_version: str, deps: tuple[str, ...]
    ) -> None:
        self.context, self.asset, self.code_version, self.deps = context, asset, code_version, deps
        self.cell: Cell = cell_of(context.partition_key.keys_by_dimension)
        self.catalog: Catalog = context.resources.catalog.open()
        self.snapshot: CellSnapshot = self.catalog.snapshot(self.cell)
        self.limits = context.resources.sandbox.limits()
        self.run_id: str = context.run.run_id
        self.began, self.meter = time.perf_counter(), Meter()
        self.read_version = self.catalog.tables.fence(asset, self.cell, self.contract(asset))
        self.reports: list[ComputeReport] = []
        self.samples_written: int | None = None
        self._upstream = UpstreamRows(self.catalog.tables, self.snapshot, self.run_id)
        self._events: list[Iterable[dict[str, Any]]] = []

    @cached_property
    def spec(self) -> DatasetSpec:
        """The frozen spec of the dataset version."""
        return self.catalog.registry.spec(self.cell.dataset, self.cell.version)

    @cached_property
    def modality(self) -> Modality:
        """The cell's modality module."""
        return get(self.cell.modality)

    @property
    def embedder_resource(self) -> EmbedderResource:
        """The resource that runs the modality's models."""
        found: EmbedderResource = getattr(self.context.resources, embedder_key(self.cell.modality))
        return found

    @cached_property
    def embedders(self) -> list[Embedder]:
        """The cell's embedders, the primary one first; not yet loaded."""
        return self.embedder_resource.open_all(self.spec.embedders.get(self.cell.modality))

    def require_models(self) -> None:
        """Find and hash the weights of all models that the spec names, here and on the nodes of a cluster.

        Raises:
            UserError: in one line, for a model that is missing or unreachable, or a node that is not fit for
                the work.
        """
        models = self.embedder_resource.require(self.spec, self.cell.modality)
        self._runner.require_workers(models)

    @cached_property
    def transcribe_kernel(self) -> TranscribeKernel | None:
        """The kernel that transcribes the cell's segments, if the spec asks for it."""
        name = self.spec.transcribe.get(self.cell.modality)
        if not name:
            return None
        return self.embedder_resource.transcribe_kernel(name, self.catalog.blobs, self.limits)

    def embed_kernel(self, embedder: Embedder) -> EmbedKernel:
        """The kernel of one of the cell's embedders."""
        return self.embedder_resource.kernel(self.catalog.blobs, self.limits, embedder)

    @cached_property
    def validation(self) -> list[Bound]:
        """The bounds that the spec sets on the cell's samples."""
        return validation_bounds(self.modality, self.spec.validation.get(self.cell.modality, {}))

    @cached_property
    def override(self) -> str:
        """The reason for which closed gates are passed, or ""."""
        return str(self.context.run.tags.get(OVERRIDE_TAG, ""))

    @cached_property
    def redrive(self) -> FailureFilter | None:
        """Failures that this run computes again, permanent ones too; None for those that may pass."""
        tag = self.context.run.tags.get(REDRIVE_TAG)
        return FailureFilter.loads(tag) if tag else None

    def contract(self, asset: str) -> Contract:
        """An asset's contract, with the modality's signals or the user's columns where it carries them."""
        base: Contract = getattr(contracts, asset.upper())
        if asset == "dataset_registry":
            return self.catalog.registry.listings.contract(self.spec)
        with_signals = asset in ("sample_metadata", "validated_samples")
        return base.extend(self.modality.signals) if with_signals else base

    def require_alive(self) -> None:
        """Check that nobody has declared this run dead, so that another may be writing what it would write.

        The fences of tables and pin stop a sleeper that wakes in the midst of a commit; this, one that would
        go on with the next stage and replace what a newer run has published with what its own code and
        settings make.

        Raises:
            Fenced: in one line.
        """
        run = self.context.instance.get_run_by_id(self.run_id)
        if run is not None and run.is_finished:
            state = run.status.value.lower()
            raise Fenced(
                f"run {self.run_id[:8]} was marked {state} while still running; nothing was published"
            )

    def read(self, asset: str, columns: list[str] | None = None) -> pa.RecordBatchReader:
        """Stream an upstream table through its contract: a row that breaks it becomes a failure event."""
        return self._upstream.read(asset, self.contract(asset), columns)

    def rows(self, asset: str) -> int:
        """Number of upstream rows that passed the contract. Valid only after `read` was exhausted."""
        return self._upstream.sound_rows(asset)

    def total(self, asset: str, column: str) -> int:
        """Sum of a column of an upstream table."""
        statement = f'SELECT coalesce(sum("{column}"::BIGINT), 0)::BIGINT AS n FROM rows'
        return int(sql.fetch(statement, rows=self.read(asset, [column]))["n"][0].as_py())

    def sql(
        self, statement: str, **streams: pa.RecordBatchReader | pa.Table
    ) -> AbstractContextManager[pa.RecordBatchReader]:
        """The result of a statement over named streams, as a stream."""
        return sql.query(statement, **streams)

    def tables_of(self, statement: str, **streams: pa.RecordBatchReader | pa.Table) -> Iterator[pa.Table]:
        """The result of a statement, table by table."""
        with sql.query(statement, **streams) as reader:
            for batch in reader:
                yield pa.Table.from_batches([batch])

    @cached_property
    def _runner(self) -> KernelRunner:
        runner: KernelRunner = self.context.resources.cache.open()
        return runner

    def compute(
        self, kernel: Kernel, requests: pa.RecordBatchReader | pa.Table, retries: RetryPolicy | None = None
    ) -> ComputeReport:
        """Compute what the cache lacks; see `mm_resources.compute.runner.KernelRunner`.

        Args:
            retries: which earlier failures are computed again; by default those that the run is there for.
        """
        report = self._runner.run(kernel, requests, self.context.log, retries or self._retries)
        self.reports.append(report)
        self.context.log.info(
            f"{report.kernel}: {report.computed:,} computed, {report.reused:,} reused, "
            f"{report.failed:,} failed ({report.mode})"
        )
        return report

    @property
    def _retries(self) -> RetryPolicy:
        if self.redrive is None:
            return RETRYABLE
        if self.redrive.stage not in ("", self.asset):
            return NONE
        chosen = self.redrive.error_class
        return RetryPolicy(permanent=True, classes=(chosen,)) if chosen else ALL

    def cached(
        self, kernel: Kernel, columns: list[str] | None = None, only_ok: bool = False
    ) -> pa.RecordBatchReader:
        """The cached results of a kernel, one for each key."""
        return self.cache_space(kernel).reader(columns, only_ok)

    def vectors(self, embedder: Embedder) -> Vectors:
        """The cached vectors of an embedder."""
        return self.cache_space(self.embed_kernel(embedder)).vectors()

    def cache_space(self, kernel: Kernel) -> CacheSpace:
        """The cached results of a kernel's fingerprint."""
        return self.catalog.cache.space(kernel)

    def fail(self, events: Iterable[dict[str, Any]]) -> None:
        """Add failure events of this stage; they are read when the stage is published."""
        self._events.append(events)

    def events(self) -> Spill:
        """Failure events of this stage that are added while its rows are written."""
        events = Spill()
        self.fail(events)
        return events

    def failure_events(self) -> Iterator[dict[str, Any]]:
        """All failure events of this stage, those of upstream rows that break their contract last."""
        for group in self._events:
            yield from group
        yield from self._upstream.violations()

    def write(self, batches: Iterable[pa.Table]) -> WrittenRows:
        """Cast rows to the stage's contract and write them; no reader sees them before the publication."""
        count = SampleCount(self.asset)
        contract = self.contract(self.asset)
        written = self.catalog.tables.write(self.asset, self.cell, contract, count.counted(batches))
        self.samples_written = count.samples
        return written


def embedder_inputs(run: CellRun) -> dict[str, Any]:
    """Fingerprints of the cell's embedders, as inputs of a stage."""
    return {"embedders": [embedder.fingerprint for embedder in run.embedders]}
