"""The ledger: a row per stage, kernel and run, with rows computed and reused, and their cost."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import Any, NamedTuple

import pyarrow as pa

from mm_embed_kernels import sql
from mm_embed_kernels.contracts import LEDGER
from mm_embed_kernels.kernels.base import Kernel
from mm_resources.cell import Cell
from mm_resources.compute.runner import ComputeReport
from mm_resources.metering import Usage
from mm_resources.storage import lance_datasets
from mm_resources.storage.lance_errors import cause_of, is_lance_error
from mm_resources.storage.store import Store
from mm_resources.storage.table_files import read_sound_fragments
from mm_resources.tables.stage_refs import StageMeta

_log = logging.getLogger(__name__)


class Rate(NamedTuple):
    """Seconds that one row of a kernel takes: on the clock, of CPUs and of GPUs."""

    seconds: float = 0.0
    cpu_seconds: float = 0.0
    gpu_seconds: float = 0.0

    @staticmethod
    def of_kernel(kernel: Kernel) -> Rate:
        """The declared rate of a kernel that never ran in this store."""
        return Rate(kernel.seconds_per_row, kernel.seconds_per_row)

    def times(self, weight: float) -> Rate:
        return Rate(*(weight * value for value in self))

    @staticmethod
    def sum(rates: Iterable[Rate]) -> Rate:
        return Rate(*map(sum, zip(*rates, Rate(), strict=True)))


@dataclass(frozen=True)
class Work:
    """The work of one run in one stage of a cell.

    Attributes:
        unchanged: whether it was skipped because nothing had changed.
        samples_in, samples_out: samples that reached and left it; like `peak_bytes`, None where they were not
            measured.
        computed, reused: kernel rows.
        seconds: wall time.
        peak_bytes: see `mm_resources.metering.UsageMeter`.
        usage: of all its processes.
    """

    stage: str
    run_id: str
    at: datetime
    unchanged: bool
    samples_in: int | None
    samples_out: int | None
    computed: int
    reused: int
    seconds: float
    peak_bytes: int | None
    usage: Usage


_FIGURES = [item.name for item in fields(Work) if item.name != "usage"]


class Ledger:
    """Append-only table of work; concurrent appends are all kept."""

    def __init__(self, store: Store) -> None:
        self._uri = store.uri("ledger/stages.lance")

    def record(self, rows: list[dict[str, Any]]) -> None:
        lance_datasets.widen(self._uri, LEDGER.bare)
        lance_datasets.append(self._uri, LEDGER.rows(rows))

    def read(self, where: str | None = None) -> pa.RecordBatchReader:
        """The rows; figures that an older version did not measure are null.

        Damaged rows are left out, with a warning: nothing that is published follows from them.
        """
        dataset = lance_datasets.open_dataset(self._uri)
        try:
            found = lance_datasets.reader(dataset, LEDGER.bare, where=where).read_all()
        except BaseException as error:
            if dataset is None or not is_lance_error(error):
                raise
            sound, lost = read_sound_fragments(dataset, where)
            if not lost:
                raise
            _log.warning(
                f"{self._uri}: {lost:,} rows are damaged and left out of costs and counts "
                f"({cause_of(error)}); run `mm doctor --verify --mend`, which removes them"
            )
            found = pa.concat_tables(sound or [LEDGER.bare.empty_table()])
        return LEDGER.cast(found).to_reader()

    def run_rows(self, run_id: str) -> list[dict[str, Any]]:
        """The rows of a run, oldest first."""
        found: list[dict[str, Any]] = self.read(f"run_id = '{run_id}'").read_all().sort_by("at").to_pylist()
        return found

    def stage_work(self, cell: Cell) -> list[Work]:
        """The work of each run in each stage of a cell, oldest first."""
        found = sql.fetch(_WORKS, ledger=self.read(_cell_condition(cell))).to_pylist()
        return [Work(**{name: row.pop(name) for name in _FIGURES}, usage=Usage(**row)) for row in found]

    def latest_work(self, cell: Cell) -> dict[str, Work]:
        """Per stage, the work of its latest run that computed or read anything, over all kernels."""
        return {work.stage: work for work in self.stage_work(cell) if not work.unchanged}

    def kernels(self, cell: Cell) -> list[dict[str, Any]]:
        """The kernels that ran for a cell.

        Returns:
            ``stage``, ``kernel``, ``fingerprint``, ``asked`` (rows that the stage's latest run requested) and
            ``reused`` (rows of all runs that the cache had).
        """
        found: list[dict[str, Any]] = sql.fetch(_KERNELS, ledger=self.read(_cell_condition(cell))).to_pylist()
        return found

    def rates(self) -> dict[str, Rate]:
        """Mean rate of a computed row, by kernel fingerprint, over all runs of this store."""
        return {
            row.pop("fingerprint"): Rate(**row) for row in sql.fetch(_RATES, ledger=self.read()).to_pylist()
        }


def _cell_condition(cell: Cell) -> str:
    return f"dataset = '{cell.dataset}' AND version = '{cell.version}' AND modality = '{cell.modality}'"


# Older rows have no CPU seconds; one busy core is assumed for them.
_WORKS = """
SELECT stage, run_id, max("at") AS "at", bool_and(unchanged) AS unchanged,
       max(samples_in) AS samples_in, max(samples_out) AS samples_out,
       sum(computed)::BIGINT AS computed, sum(reused)::BIGINT AS reused,
       sum(seconds) AS seconds, max(peak_bytes) AS peak_bytes,
       coalesce(sum(cpu_seconds), sum(seconds)) AS cpu_seconds, coalesce(sum(gpu_seconds), 0) AS gpu_seconds,
       coalesce(sum(bytes_read), 0)::BIGINT AS bytes_read,
       coalesce(sum(bytes_written), 0)::BIGINT AS bytes_written,
       coalesce(sum(bytes_transferred), 0)::BIGINT AS bytes_transferred
FROM ledger GROUP BY stage, run_id ORDER BY "at"
"""
_KERNELS = """
SELECT stage, kernel, fingerprint, (sum(computed + reused) FILTER (latest))::BIGINT AS asked,
       sum(reused)::BIGINT AS reused
FROM (
  SELECT *, rank() OVER (PARTITION BY stage ORDER BY "at" DESC) = 1 AS latest
  FROM ledger WHERE fingerprint IS NOT NULL AND NOT unchanged
)
GROUP BY stage, kernel, fingerprint ORDER BY stage, kernel, fingerprint
"""
_RATES = """
SELECT fingerprint, sum(kernel_seconds) / sum(computed) AS seconds,
       sum(coalesce(kernel_cpu_seconds, kernel_seconds)) / sum(computed) AS cpu_seconds,
       sum(coalesce(gpu_seconds, 0)) / sum(computed) AS gpu_seconds
FROM ledger WHERE computed > 0 GROUP BY fingerprint
"""


@dataclass(frozen=True)
class Spent:
    """The cost of a stage beside that of its kernels.

    Attributes:
        seconds: wall time.
        usage: of all its processes.
        peak_bytes: see `mm_resources.metering.UsageMeter`.
        samples_in, samples_out: samples that reached and left it; None where a stage of an older version did
            not count them.
    """

    seconds: float
    usage: Usage
    peak_bytes: int
    samples_in: int | None
    samples_out: int | None


def entries(
    stage: str,
    cell: Cell,
    run_id: str,
    meta: StageMeta,
    unchanged: bool,
    reports: Sequence[ComputeReport],
    spent: Spent,
) -> list[dict[str, Any]]:
    """Make a row for each kernel that a stage ran, or one for the stage.

    Only the first row contains the stage's own figures, so that sums are right.
    """
    stage_row = {
        "dataset": cell.dataset,
        "version": cell.version,
        "modality": cell.modality,
        "stage": stage,
        "run_id": run_id,
        "unchanged": unchanged,
        "rows": meta.rows,
        "data_version": meta.data_version,
        "at": datetime.now(UTC),
    }
    kernels = [_kernel_figures(report) for report in reports] or [_NO_KERNEL]
    return [
        {**stage_row, **figures, **(_stage_figures(spent) if number == 0 else {"seconds": 0.0})}
        for number, figures in enumerate(kernels)
    ]


def _stage_figures(spent: Spent) -> dict[str, Any]:
    return {
        "seconds": spent.seconds,
        "samples_in": spent.samples_in,
        "samples_out": spent.samples_out,
        "cpu_seconds": spent.usage.cpu_seconds,
        "bytes_read": spent.usage.bytes_read,
        "bytes_written": spent.usage.bytes_written,
        "bytes_transferred": spent.usage.bytes_transferred,
        "peak_bytes": spent.peak_bytes,
    }


def _kernel_figures(report: ComputeReport) -> dict[str, Any]:
    return {
        "kernel": report.kernel,
        "fingerprint": report.fingerprint or None,
        "mode": report.mode or None,
        "computed": report.computed,
        "reused": report.reused,
        "failed": report.failed,
        "checkpoints": report.checkpoints,
        "kernel_seconds": report.seconds,
        "kernel_cpu_seconds": report.usage.cpu_seconds,
        "gpu_seconds": report.usage.gpu_seconds,
    }


# The figures of a stage without kernels; it has no kernel, rather than one without a name.
_NO_KERNEL = {**_kernel_figures(ComputeReport("", "", "", 0, 0, 0, 0, 0.0)), "kernel": None}
