"""One asset of one cell in one run: the interface through which an asset body reads, computes and writes."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import cached_property
from typing import Any

import pyarrow as pa

from mm_assets.cells.increment import Increment, count_kept
from mm_assets.cells.run_context import RunContext
from mm_assets.cells.run_tags import OVERRIDE_TAG, REDRIVE_TAG
from mm_assets.cells.sample_count import SampleCount
from mm_assets.cells.upstream import UpstreamRows
from mm_embed_kernels import contracts, sql
from mm_embed_kernels.contracts import Contract
from mm_embed_kernels.embedders import Embedder
from mm_embed_kernels.kernels.base import Kernel
from mm_embed_kernels.kernels.embed import EmbedKernel
from mm_embed_kernels.kernels.transcribe import TranscribeKernel
from mm_embed_kernels.modalities import Modality, get
from mm_embed_kernels.spec.dataset_spec import DatasetSpec
from mm_embed_kernels.validation.bounds import Bound, validation_bounds
from mm_resources.catalog import Catalog
from mm_resources.cell import Cell
from mm_resources.compute.cache import CacheSpace
from mm_resources.compute.retry_policy import ALL, NONE, RETRYABLE, RetryPolicy
from mm_resources.compute.runner import ComputeReport, KernelRunner
from mm_resources.ledger.cell_snapshot import CellSnapshot
from mm_resources.metering import UsageMeter
from mm_resources.registry.registry import other_versions
from mm_resources.storage import lance_datasets
from mm_resources.storage.lance_errors import Fenced
from mm_resources.storage.patience import read_patiently
from mm_resources.storage.spool import Spill, TableSpool
from mm_resources.tables.failure_events import FailureFilter
from mm_resources.tables.stage_writer import WrittenRows
from mm_resources.work_settings import ModelSettings


class CellRun:
    """Reads upstream rows, computes through the cache, and writes rows that `publication` commits.

    Attributes:
        context: the run's surroundings.
        catalog: the parts of the store.
        snapshot: state of the cell's stages when the run entered this one.
        began, meter, number: set by `begin`; the number is that of the ref that the stage will have.
        reports: counts of each computation of the stage.
        samples_written: samples in the written rows; None before `write`, and for a stage without sample ids.
        increment: set at entry where the stage computes the rows of some samples and takes over the others.
    """

    def __init__(
        self,
        context: RunContext,
        asset: str,
        code_version: str,
        deps: tuple[str, ...],
        snapshot: CellSnapshot | None = None,
    ) -> None:
        self.context, self.asset, self.code_version, self.deps = context, asset, code_version, deps
        self.cell: Cell = context.cell
        self.catalog: Catalog = context.catalog
        self.snapshot = snapshot or self.catalog.snapshot(self.cell)
        self.limits = context.limits
        self.run_id = context.run_id
        self.reports: list[ComputeReport] = []
        self.samples_written: int | None = None
        self.increment: Increment | None = None
        self._requested: dict[str, pa.Array] = {}
        self._upstream = UpstreamRows(self.catalog.tables, self.snapshot, self.run_id)
        self._events: list[Iterable[dict[str, Any]]] = []

    @cached_property
    def spec(self) -> DatasetSpec:
        """The frozen spec of the dataset version."""
        return self.catalog.registry.spec(self.cell.dataset, self.cell.version)

    @property
    def parent_cell(self) -> Cell | None:
        """The cell of the same modality of the parent version, None without a parent."""
        return replace(self.cell, version=self.spec.parent) if self.spec.parent is not None else None

    @cached_property
    def modality(self) -> Modality:
        """The cell's modality module."""
        return get(self.cell.modality)

    @cached_property
    def models(self) -> ModelSettings:
        """The settings of the modality's models."""
        return self.context.open_models()

    @cached_property
    def embedders(self) -> list[Embedder]:
        """The cell's embedders, the primary one first; not yet loaded."""
        return self.models.open_all(self.spec.embedders.get(self.cell.modality))

    def require_models(self) -> None:
        """Find and hash the weights of all models of the spec, on this machine and on the nodes of a cluster.

        Raises:
            UserError: for a model that is missing or unreachable, or a node that differs from this machine.
        """
        models = self.models.require(self.spec, self.cell.modality)
        self._runner.require_workers(models)

    @cached_property
    def transcribe_kernel(self) -> TranscribeKernel | None:
        """The kernel that transcribes the cell's segments; None where the spec requests no transcripts."""
        name = self.spec.transcribe.get(self.cell.modality)
        if not name:
            return None
        return self.models.transcribe_kernel(name, self.catalog.blobs, self.limits)

    def embed_kernel(self, embedder: Embedder) -> EmbedKernel:
        """Return the kernel of one of the cell's embedders."""
        return self.models.kernel(self.catalog.blobs, self.limits, embedder)

    @cached_property
    def validation(self) -> list[Bound]:
        """The bounds that the spec sets on the cell's samples."""
        return validation_bounds(self.modality, self.spec.validation.get(self.cell.modality, {}))

    @cached_property
    def override(self) -> str:
        """The reason for which closed gates are overridden, "" for none."""
        return str(self.context.tags.get(OVERRIDE_TAG, ""))

    @cached_property
    def redrive(self) -> FailureFilter | None:
        """Failures that this run computes again, permanent ones included; None: the retryable ones."""
        tag = self.context.tags.get(REDRIVE_TAG)
        return FailureFilter.loads(tag) if tag else None

    def contract(self, asset: str) -> Contract:
        """Return an asset's contract, with the modality's signals or the user's columns where it has them."""
        base: Contract = getattr(contracts, asset.upper())
        if asset == "dataset_registry":
            return self.catalog.registry.listings.contract(self.spec)
        with_signals = asset in ("sample_metadata", "validated_samples")
        return base.extend(self.modality.signals) if with_signals else base

    def begin(self) -> None:
        """Begin to meter the stage, and take the number of its ref; before anything of it is read."""
        self.began, self.meter = time.perf_counter(), UsageMeter()
        self.number = read_patiently(lambda: self.catalog.tables.fence(self.asset, self.cell))

    def require_alive(self) -> None:
        """Check that the run has not been marked as finished.

        A run that was suspended and marked dead could otherwise publish stages over those of a newer run. The
        numbers of refs and pins cover a commit in progress; this covers the next stage.

        Raises:
            Fenced: when it has.
        """
        if state := self.context.find_end():
            raise Fenced(
                f"run {self.run_id[:8]} was marked {state} while still running; nothing was published; "
                "run the same command again"
            )

    def read(self, asset: str, columns: list[str] | None = None) -> pa.RecordBatchReader:
        """Stream an upstream table: all rows, or those of the samples that `increment` computes again.

        A row that violates its contract becomes a failure event instead.
        """
        contract = self.contract(asset)
        chosen = self.increment.filter_of(contract.schema.names) if self.increment else None
        return self._upstream.read(asset, contract, columns, chosen)

    def read_all(self, asset: str, columns: list[str]) -> pa.RecordBatchReader:
        """Stream columns of an upstream table, always all rows; as `read` otherwise."""
        return self._upstream.read(asset, self.contract(asset), columns)

    def count_rows(self, asset: str) -> int:
        """Count the upstream rows that passed the contract. Valid only after `read` was exhausted."""
        return self._upstream.count_rows(asset)

    def total(self, asset: str, column: str) -> int:
        """Return the sum of a column of an upstream table, over all rows."""
        statement = f'SELECT coalesce(sum("{column}"::BIGINT), 0)::BIGINT AS n FROM rows'
        return int(sql.fetch(statement, rows=self.read_all(asset, [column]))["n"][0].as_py())

    def query(
        self, statement: str, **streams: pa.RecordBatchReader | pa.Table
    ) -> AbstractContextManager[pa.RecordBatchReader]:
        """Open the result of a statement over named streams, as a stream."""
        return sql.query(statement, **streams)

    def query_tables(self, statement: str, **streams: pa.RecordBatchReader | pa.Table) -> Iterator[pa.Table]:
        """Yield the result of a statement over named streams, table by table."""
        with sql.query(statement, **streams) as reader:
            for batch in reader:
                yield pa.Table.from_batches([batch])

    @cached_property
    def _runner(self) -> KernelRunner:
        return self.context.open_runner()

    def compute(
        self, kernel: Kernel, requests: pa.RecordBatchReader | pa.Table, retries: RetryPolicy | None = None
    ) -> ComputeReport:
        """Compute the results that the cache lacks; see `mm_resources.compute.runner.KernelRunner`.

        Args:
            retries: earlier failures that are computed again; by default those of `redrive`.
        """
        if self.increment is not None:
            spool = TableSpool.of(requests.to_reader() if isinstance(requests, pa.Table) else requests)
            requested = spool.reader(["key"]).read_all()["key"]
            self._requested[kernel.fingerprint] = requested.combine_chunks()
            requests = spool.reader()
        report = self._runner.run(kernel, requests, self.context.log, retries or self._retries)
        if self.increment is not None:
            kept = count_kept(self.increment, self.catalog.store, self.contract(self.asset), report.kernel)
            report = replace(report, reused=report.reused + kept)
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

    def cached_results(
        self, kernel: Kernel, columns: list[str] | None = None, only_ok: bool = False
    ) -> pa.RecordBatchReader:
        """Stream the cached results of a kernel, one for each key: of all, or of what `compute` requested."""
        space = self.cache_space(kernel)
        if self.increment is not None and kernel.fingerprint in self._requested:
            return space.results_of(self._requested[kernel.fingerprint], columns, only_ok)
        return space.reader(columns, only_ok)

    def cache_space(self, kernel: Kernel) -> CacheSpace:
        """Return the cache of a kernel's fingerprint."""
        return self.catalog.cache.space(kernel)

    def fail(self, events: Iterable[dict[str, Any]]) -> None:
        """Add failure events of this stage; they are read when the stage is published."""
        self._events.append(events)

    def new_failure_spill(self) -> Spill:
        """Return a list on disk for failure events that are added while the stage's rows are written."""
        events = Spill()
        self.fail(events)
        return events

    def failure_events(self) -> Iterator[dict[str, Any]]:
        """Yield all failure events of this stage, those of upstream rows that violate their contract last."""
        for group in self._events:
            yield from group
        yield from self._upstream.violations()

    def other_versions(self) -> Iterator[Cell]:
        """Yield the cells whose rows this one's are likely to repeat: the parent's, then the latest ones."""
        if self.parent_cell is not None:
            yield self.parent_cell
        yield from other_versions(self.catalog.registry, self.cell)

    def write(self, batches: Iterable[pa.Table]) -> WrittenRows:
        """Cast rows to the stage's contract and write them; readers see them after the publication.

        What differs from the stage's last rows is written, or from those of the parent version.
        """
        count, contract, tables = SampleCount(self.asset), self.contract(self.asset), self.catalog.tables
        if self.increment is None or self.increment.owner not in contract.schema.names:
            rows = count.count_samples(batches)
            written = tables.write(self.asset, self.cell, contract, rows, self.other_versions())
        else:
            some = (self.increment.base, self.increment.owner, self.increment.owners)
            written = tables.write_changes(self.asset, self.cell, contract, batches, *some)
            count.add_all(self.read_written(written, count.columns(contract.schema.names)))
        self.samples_written = count.samples
        return written

    def read_written(self, written: WrittenRows, columns: list[str] | None = None) -> pa.RecordBatchReader:
        """Stream all rows that were written, those that were taken over included."""
        dataset = lance_datasets.open_dataset(self.catalog.store.uri(written.table), written.lance_version)
        return lance_datasets.reader(dataset, self.contract(self.asset).bare, columns)


def embedder_inputs(run: CellRun) -> dict[str, Any]:
    """Return the fingerprints of the cell's embedders, as inputs of a stage."""
    return {"embedders": [embedder.fingerprint for embedder in run.embedders]}


def embedder_rules(run: CellRun) -> dict[str, Any]:
    """Return fingerprints and names of the cell's embedders: rows carry both, and names may share one."""
    return {**embedder_inputs(run), "names": [embedder.name for embedder in run.embedders]}


def validation_inputs(run: CellRun) -> dict[str, Any]:
    """Return the bounds that the spec sets on the cell's samples, as inputs of a stage; {} without any."""
    return {"validation": [vars(bound) for bound in run.validation]} if run.validation else {}


def count_written(run: CellRun, written: WrittenRows, column: str) -> Counter[Any]:
    """Count the rows that were written by the value of a column, those that were taken over included."""
    counts: Counter[Any] = Counter()
    for batch in run.read_written(written, [column]):
        found = batch[column].value_counts()
        counts.update(dict(zip(found.field(0).to_pylist(), found.field(1).to_pylist(), strict=True)))
    return counts
