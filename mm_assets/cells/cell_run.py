"""One asset of one cell in one run: what an asset body reads, computes, records and publishes through."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import UTC, datetime
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any

import dagster as dg
import pyarrow as pa

from mm_assets.cells.asset_page import shown_of
from mm_assets.cells.checks import OVERRIDABLE, Check, closed, override_command
from mm_assets.cells.materialization import materialize_result, plain
from mm_assets.cells.partitions import cell_of
from mm_assets.cells.run_tags import CLOSED_GATE, OVERRIDE_TAG, REDRIVE_TAG
from mm_assets.cells.sample_count import SampleCount
from mm_embed_kernels import contracts, sql
from mm_embed_kernels.contracts import Contract
from mm_embed_kernels.contracts.pipeline import STAGES
from mm_embed_kernels.embedders import Embedder
from mm_embed_kernels.errors import UserError
from mm_embed_kernels.identity import canonical, digest
from mm_embed_kernels.kernels.base import Kernel
from mm_embed_kernels.kernels.embed import EmbedKernel
from mm_embed_kernels.modalities import Modality, get
from mm_embed_kernels.spec.dataset_spec import DatasetSpec
from mm_embed_kernels.sql import RowDigest
from mm_embed_kernels.validation.bounds import Bound, validation_bounds
from mm_resources.blobs.forgotten import Receipts
from mm_resources.cell import Cell
from mm_resources.compute.cache import ALL, NONE, RETRYABLE, CacheSpace, Vectors, of_classes
from mm_resources.compute.progress import report
from mm_resources.compute.runner import Compute, ComputeReport
from mm_resources.ledger.ledger import Ledger, Spent, entries
from mm_resources.metering import Meter
from mm_resources.registry.registry import Registry
from mm_resources.resources import EmbedderResource, embedder_key
from mm_resources.storage.lance_datasets import Fenced
from mm_resources.storage.spool import Spill
from mm_resources.tables.failure_events import FailureEvents, FailureFilter
from mm_resources.tables.stage_tables import StageMeta, StageTables

if TYPE_CHECKING:
    from mm_embed_kernels.kernels.transcribe import TranscribeKernel


class CellRun:
    """See the module's docstring. `context` carries the resources; everything else is plain."""

    def __init__(
        self, context: dg.AssetExecutionContext, asset: str, code_version: str, deps: tuple[str, ...]
    ) -> None:
        resources = context.resources
        self.context, self.asset, self.code_version, self.deps = context, asset, code_version, deps
        self.cell: Cell = cell_of(context.partition_key.keys_by_dimension)
        self.registry: Registry = resources.registry.open()
        self.tables: StageTables = resources.tables.stages()
        self.failures: FailureEvents = resources.tables.failures()
        self.ledger: Ledger = resources.tables.ledger()
        self.blobs = resources.blobs.open()
        self.features = resources.features.open()
        self.limits = resources.sandbox.limits()
        self.run_id: str = context.run.run_id
        self.began = time.perf_counter()
        self.read_version = self.tables.fence(asset, self.cell, self.contract(asset))
        self._reports: list[ComputeReport] = []
        self._events: list[Iterable[dict[str, Any]]] = []
        # Keyed, since a stage may read a table more than once.
        self._violations: dict[tuple[str, str, str], dict[str, Any]] = {}
        self._observe: Callable[[CellRun], list[Check]] = nothing_to_observe
        self._meter = Meter()
        self._samples_in: int | None = None

    # -- what the cell is

    @cached_property
    def spec(self) -> DatasetSpec:
        return self.registry.spec(self.cell.dataset, self.cell.version)

    @cached_property
    def modality(self) -> Modality:
        return get(self.cell.modality)

    @property
    def embedder_resource(self) -> EmbedderResource:
        found: EmbedderResource = getattr(self.context.resources, embedder_key(self.cell.modality))
        return found

    @cached_property
    def embedders(self) -> list[Embedder]:
        """The cell's embedders, the primary one first; not yet loaded."""
        return self.embedder_resource.open_all(self.spec.embedders.get(self.cell.modality))

    def require_models(self) -> None:
        """Find and hash the weights of all that the cell's spec names, here and on the nodes of a cluster.

        Raises:
            dg.Failure: in one line, for a model that is missing or unreachable, or a node that is not fit for the work.
        """
        try:
            models = self.embedder_resource.require(self.spec, self.cell.modality)
            self.context.resources.cache.open().require_workers(models)
        except UserError as error:
            raise dg.Failure(str(error), allow_retries=False) from None

    @cached_property
    def transcribe_kernel(self) -> TranscribeKernel | None:
        """What writes down what is said in the cell's segments, if the spec asks for it."""
        name = self.spec.transcribe.get(self.cell.modality)
        return self.embedder_resource.transcribe_kernel(name, self.blobs, self.limits) if name else None

    def embed_kernel(self, embedder: Embedder) -> EmbedKernel:
        return self.embedder_resource.kernel(self.blobs, self.limits, embedder)

    @cached_property
    def validation(self) -> list[Bound]:
        """What the spec allows of the cell's samples."""
        return validation_bounds(self.modality, self.spec.validation.get(self.cell.modality, {}))

    @cached_property
    def override(self) -> str:
        """The reason for which closed gates are passed, or ""."""
        return str(self.context.run.tags.get(OVERRIDE_TAG, ""))

    @cached_property
    def redrive(self) -> FailureFilter | None:
        """The failures that this run tries again, permanent ones too; None for a run that takes what may pass."""
        tag = self.context.run.tags.get(REDRIVE_TAG)
        return FailureFilter.loads(tag) if tag else None

    def contract(self, asset: str) -> Contract:
        """An asset's contract, with the modality's signals or the user's columns where it carries them."""
        base: Contract = getattr(contracts, asset.upper())
        if asset == "dataset_registry":
            return self.registry.listings.contract(self.spec)
        return (
            base.extend(self.modality.signals) if asset in ("sample_metadata", "validated_samples") else base
        )

    # -- reading

    def read(self, asset: str, columns: list[str] | None = None) -> pa.RecordBatchReader:
        """Stream an upstream table through its contract: a row that breaks it becomes a failure event."""
        contract, dataset = self.contract(asset), self.tables.dataset(asset, self.cell)
        reader, sound = self.tables.rows(dataset, columns), _found_sound(self.run_id)
        held = {name: (asset, self.cell, dataset.version, name) for name in reader.schema.names}
        # A version never changes: what this run has read to its end without a broken row is not looked at again.
        asked = [name for name, place in held.items() if place not in sound]

        def gated() -> Iterator[pa.RecordBatch]:
            whole = True
            for batch in reader:
                good, broken = contract.split(pa.Table.from_batches([batch]), asked)
                whole = whole and not broken
                self._violations.update(
                    {
                        (asset, str(row.get(contract.key)), line): _violation(row, asset, line)
                        for row, line in broken
                    }
                )
                yield from good.to_batches()
            if whole:
                sound.update(held.values())

        return pa.RecordBatchReader.from_batches(reader.schema, gated())

    def rows(self, asset: str) -> int:
        """Rows of an upstream table that fit its contract; to be asked after they were read."""
        meta = self.tables.meta(asset, self.cell)
        return (meta.rows if meta else 0) - len({row for name, row, _ in self._violations if name == asset})

    def total(self, asset: str, column: str) -> int:
        """Sum of a column of an upstream table."""
        found = sql.fetch(
            f'SELECT coalesce(sum("{column}"::BIGINT), 0)::BIGINT AS n FROM rows',
            rows=self.read(asset, [column]),
        )
        return int(found["n"][0].as_py())

    def sql(
        self, statement: str, **streams: pa.RecordBatchReader | pa.Table
    ) -> AbstractContextManager[pa.RecordBatchReader]:
        return sql.query(statement, **streams)

    def tables_of(self, statement: str, **streams: pa.RecordBatchReader | pa.Table) -> Iterator[pa.Table]:
        """The result of a statement, table by table."""
        with sql.query(statement, **streams) as reader:
            for batch in reader:
                yield pa.Table.from_batches([batch])

    # -- computing

    def compute(
        self, kernel: Kernel, requests: pa.RecordBatchReader | pa.Table, again: str = ""
    ) -> ComputeReport:
        """Compute what the cache lacks; see `mm_resources.compute.runner.Compute`.

        Args:
            again: which earlier failures are tried again; by default those that the run is there for.
        """
        compute: Compute = self.context.resources.cache.open()
        report = compute.run(kernel, requests, self.context.log, again or self._again)
        self._reports.append(report)
        self.context.log.info(
            f"{report.kernel}: {report.computed:,} computed, {report.reused:,} reused, {report.failed:,} failed ({report.mode})"
        )
        return report

    @property
    def _again(self) -> str:
        if self.redrive is None:
            return RETRYABLE
        if self.redrive.stage not in ("", self.asset):
            return NONE
        return of_classes([self.redrive.error_class]) if self.redrive.error_class else ALL

    def cached(
        self, kernel: Kernel, columns: list[str] | None = None, only_ok: bool = False
    ) -> pa.RecordBatchReader:
        """The cached results of a kernel, one for each key."""
        return self.cache_space(kernel).reader(columns, only_ok)

    def vectors(self, embedder: Embedder) -> Vectors:
        """The cached vectors of an embedder."""
        return self.cache_space(self.embed_kernel(embedder)).vectors()

    def cache_space(self, kernel: Kernel) -> CacheSpace:
        compute: Compute = self.context.resources.cache.open()
        return compute.cache.space(kernel)

    # -- recording

    def fail(self, events: Iterable[dict[str, Any]]) -> None:
        """Failure events of this stage; read when the stage is published."""
        self._events.append(events)

    def events(self) -> Spill:
        """Failure events of this stage that are added while its rows are written."""
        events = Spill()
        self.fail(events)
        return events

    def publish(
        self,
        batches: Iterable[pa.Table],
        summary: Callable[[], dict[str, Any]] = dict,
        checks: Callable[[], list[Check]] = list,
        effect: Callable[[], None] | None = None,
        row_count: Callable[[], int] | None = None,
        plots: Callable[[], Mapping[str, bytes | None]] = dict,
    ) -> dg.MaterializeResult[Any]:
        """Write the stage's table and its verdict in one commit, then report to Dagster.

        Args:
            summary: figures for people, read after the rows are written.
            checks: the stage's checks, likewise.
            effect: what must happen after the stage is sound and before it is committed (the pin).
            plots: pictures of the stage (PNG) by name, drawn when it is sound.
            row_count: rows that the asset stands for, where they are not its table's.
        """
        outcome: list[Check] = []
        count = SampleCount(self.asset)
        kernel = self._reports[-1].fingerprint if self._reports else ""

        def seal(digest_: RowDigest) -> StageMeta:
            events = (event for group in [*self._events, self._violations.values()] for event in group)
            failed = self.failures.write(
                self.asset, self.cell, self.run_id, events, kernel, self.limits.environment
            )
            outcome.extend(self._waive(check) for check in checks())
            reason = "; ".join(check.description for check in closed(outcome))
            if command := override_command(self.cell, outcome):
                reason += f"; to publish all the same: {command}"
            self.require_alive()
            if effect is not None and not reason:
                effect()
            drawn = {} if reason else {name: png for name, png in plots().items() if png}
            for name, png in drawn.items():
                self.tables.save_plot(self.asset, self.cell, self.run_id, name, png)
            waived = "; ".join(check.description for check in outcome if check.waived)
            figures = {**summary(), **({"gate overridden": f"{waived} ({self.override})"} if waived else {})}
            meta = StageMeta(
                data_version=digest("stage", self.asset, digest_.hexdigest(), canonical(self._code()))[:24],
                inputs=self.inputs,
                rows=digest_.rows,
                row_count=row_count() if row_count else digest_.rows,
                failed=failed.events,
                retryable=failed.retryable,
                failures=failed.version,
                environment=self.limits.environment,
                blocked=reason,
                work={report.kernel: report.computed + report.reused for report in self._reports},
                run_id=self.run_id,
                at=datetime.now(UTC).isoformat(),
                summary=figures,
                checks=[
                    {**vars(check), "figures": {name: plain(value) for name, value in check.figures.items()}}
                    for check in outcome
                ],
                plots=list(drawn),
                samples=self._samples_in if count.samples is None else count.samples,
            )
            # Before the commit: what a run that dies between the two has spent is not lost.
            self._record(meta, unchanged=False)
            return meta

        meta = self.tables.publish(
            self.asset, self.cell, self.contract(self.asset), count.counted(batches), self.read_version, seal
        )
        return self._finish(meta, outcome, unchanged=False)

    # -- the gate on the way in, and the way past unchanged work

    inputs: str = ""
    _depends: Callable[[CellRun], dict[str, Any]] = staticmethod(lambda run: {})

    def enter(
        self,
        depends: Callable[[CellRun], dict[str, Any]],
        holds: Callable[[CellRun], bool],
        observe: Callable[[CellRun], list[Check]],
    ) -> dg.MaterializeResult[Any] | None:
        """Refuse if an earlier gate is closed; return the stored result if nothing changed.

        Args:
            depends: what besides upstream data decides the result.
            holds: whether the stored result still speaks of what is there; asked when nothing else changed.
            observe: checks of the outside world, made anew in every run.

        Raises:
            dg.Failure: in one line, when upstream is missing or blocked.
        """
        self._depends, self._observe = depends, observe
        self.require_alive()
        try:
            Receipts(self.registry.store).require_done()
        except UserError as error:
            raise dg.Failure(str(error), allow_retries=False) from None
        report(self.asset, 0, 0)
        upstream = STAGES[: STAGES.index(self.asset)]
        metas = {name: self.tables.meta(name, self.cell) for name in upstream}
        for name, meta in metas.items():
            if meta is not None and meta.blocked:
                raise dg.Failure(f"{CLOSED_GATE} {name} is closed: {meta.blocked}", allow_retries=False)
        for name, meta in metas.items():
            if meta is None:
                raise dg.Failure(
                    f"{name} of {self.cell.partition_key} is not materialized; run `mm backfill {self.cell.dataset_version}`",
                    allow_retries=False,
                )
        self._samples_in = next((meta.samples for meta in reversed(metas.values()) if meta), None)
        versions = {name: meta.data_version for name, meta in metas.items() if meta}
        self.inputs = digest("inputs", self.asset, canonical(versions), canonical(self._code()))
        meta = self.tables.meta(self.asset, self.cell)
        if (
            meta is None
            or meta.inputs != self.inputs
            or meta.blocked
            or self._tries_again(meta)
            or not holds(self)
        ):
            return None
        self._record(meta, unchanged=True)
        return self._finish(meta, [Check(**check) for check in meta.checks], unchanged=True)

    def _tries_again(self, meta: StageMeta) -> bool:
        """Whether failures that the stage has recorded are this run's work."""
        if self.redrive is None:
            return bool(meta.retryable or (meta.failed and meta.environment != self.limits.environment))
        if self.redrive.stage not in ("", self.asset):
            return False
        return any(
            batch.num_rows for batch in self.failures.read(self.cell, ["stage"], [self.asset], self.redrive)
        )

    def require_alive(self) -> None:
        """See that nobody has declared this run dead, so that another may be at work on what it would write.

        The fences of tables and pin stop a sleeper that wakes in the midst of a commit; this, one that would go on with
        the next stage and replace what a newer run has published with what its own code and settings make.

        Raises:
            Fenced: in one line.
        """
        run = self.context.instance.get_run_by_id(self.run_id)
        if run is not None and run.is_finished:
            raise Fenced(
                f"run {self.run_id[:8]} was declared {run.status.value.lower()} while it was at work; it publishes nothing"
            )

    def _waive(self, check: Check) -> Check:
        return replace(check, waived=bool(self.override) and not check.passed and check.name in OVERRIDABLE)

    def _code(self) -> dict[str, Any]:
        return {"code_version": self.code_version, **self._depends(self)}

    def _finish(self, meta: StageMeta, checks: list[Check], unchanged: bool) -> dg.MaterializeResult[Any]:
        work = {report.kernel: (report.computed, report.reused) for report in self._reports}
        work = work or {kernel: (0, requests) for kernel, requests in meta.work.items()}
        declared = {key.name for key in self.context.selected_asset_check_keys}
        checks = [check for check in [*checks, *self._observe(self)] if check.name in declared]
        seconds = time.perf_counter() - self.began
        return materialize_result(
            self.asset, self.cell, meta, shown_of(self, meta), checks, work, unchanged, seconds
        )

    def _record(self, meta: StageMeta, unchanged: bool) -> None:
        reports = self._reports or [
            ComputeReport(kernel, "", "", 0, requests, 0, 0, 0.0) for kernel, requests in meta.work.items()
        ]
        entering = meta.samples if self.asset == STAGES[0] else self._samples_in
        stage = Spent(
            time.perf_counter() - self.began,
            self._meter.used(),
            self._meter.peak_bytes,
            entering,
            meta.samples,
        )
        self._meter.close()
        self.ledger.record(entries(self.asset, self.cell, self.run_id, meta, unchanged, reports, stage))


@lru_cache(maxsize=8)
def _found_sound(run_id: str) -> set[tuple[str, Cell, int, str]]:
    """Columns (asset, cell, version, name) of upstream tables that fit their contract, as far as this process has seen in a run."""
    return set()


def _violation(row: dict[str, Any], asset: str, line: str) -> dict[str, Any]:
    names = ("sample_id", "segment_id", "content_hash", "source_uri")
    return {
        **{name: row.get(name) for name in names},
        "error_class": "contract_violation",
        "message": f"{asset}: {line}",
    }


def nothing_to_observe(run: CellRun) -> list[Check]:
    return []


def embedder_inputs(run: CellRun) -> dict[str, Any]:
    return {"embedders": [embedder.fingerprint for embedder in run.embedders]}
