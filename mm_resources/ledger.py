"""The ledger: a row per stage, kernel and run, with what was computed, what was reused and what it took."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from mm_embed_kernels import relational
from mm_embed_kernels.contracts import LEDGER
from mm_resources import lance_io
from mm_resources.compute import ComputeReport
from mm_resources.metering import Usage
from mm_resources.store import Cell, Store
from mm_resources.tables import StageMeta


class Ledger:
    """Append-only; concurrent runs both land."""

    def __init__(self, store: Store) -> None:
        self._uri = store.uri("ledger/stages.lance")

    def record(self, rows: list[dict[str, Any]]) -> None:
        lance_io.widen(self._uri, LEDGER.bare)
        lance_io.append(self._uri, LEDGER.rows(rows))

    def read(self, where: str | None = None) -> pa.RecordBatchReader:
        """The rows; what an older version did not measure is null in them."""
        found = lance_io.reader(lance_io.open_dataset(self._uri), LEDGER.bare, where=where)
        rows = (batch for stored in found for batch in LEDGER.cast(pa.Table.from_batches([stored])).to_batches())
        return pa.RecordBatchReader.from_batches(LEDGER.bare, rows)

    def of_run(self, run_id: str) -> list[dict[str, Any]]:
        """The rows of a run, oldest first."""
        found: list[dict[str, Any]] = self.read(f"run_id = '{run_id}'").read_all().sort_by("at").to_pylist()
        return found

    def of_cell(self, cell: Cell) -> list[dict[str, Any]]:
        """Per stage, what its latest run that did work computed, reused and took, over all its kernels."""
        where = f"dataset = '{cell.dataset}' AND version = '{cell.version}' AND modality = '{cell.modality}' AND NOT unchanged"
        sql = """
        SELECT stage, sum(computed)::BIGINT AS computed, sum(reused)::BIGINT AS reused, sum(seconds) AS seconds
        FROM (SELECT * FROM ledger QUALIFY rank() OVER (PARTITION BY stage ORDER BY "at" DESC) = 1) GROUP BY stage
        """
        found: list[dict[str, Any]] = relational.fetch(sql, ledger=self.read(where)).to_pylist()
        return found

    def rates(self) -> dict[str, float]:
        """Seconds per computed row, by kernel fingerprint, over all runs of this store."""
        sql = """
        SELECT fingerprint, sum(kernel_seconds) / sum(computed) AS seconds FROM ledger
        WHERE computed > 0 GROUP BY fingerprint
        """
        found = relational.fetch(sql, ledger=self.read())
        return dict(zip(found["fingerprint"].to_pylist(), found["seconds"].to_pylist(), strict=True))


@dataclass(frozen=True)
class Spent:
    """What a stage took, beside what its kernels report.

    Attributes:
        seconds: wall time.
        usage: of all its processes.
        peak_bytes: see `mm_resources.metering.Meter`.
        samples_in, samples_out: samples that reached and left it; None where a stage of an older version did not count them.
    """

    seconds: float
    usage: Usage
    peak_bytes: int
    samples_in: int | None
    samples_out: int | None


def entries(
    stage: str, cell: Cell, run_id: str, meta: StageMeta, unchanged: bool, reports: Sequence[ComputeReport], spent: Spent
) -> list[dict[str, Any]]:
    """A row for each kernel that a stage ran, or one for the stage; its own figures stand in the first alone, so that sums are right."""
    own = {
        "seconds": spent.seconds,
        "samples_in": spent.samples_in,
        "samples_out": spent.samples_out,
        "cpu_seconds": spent.usage.cpu_seconds,
        "bytes_read": spent.usage.bytes_read,
        "bytes_written": spent.usage.bytes_written,
        "bytes_transferred": spent.usage.bytes_transferred,
        "peak_bytes": spent.peak_bytes,
    }
    now = datetime.now(UTC)
    return [
        {
            "dataset": cell.dataset,
            "version": cell.version,
            "modality": cell.modality,
            "stage": stage,
            "run_id": run_id,
            "unchanged": unchanged,
            "rows": meta.rows,
            "data_version": meta.data_version,
            "at": now,
            "kernel": report.kernel if report else None,
            "fingerprint": report.fingerprint or None if report else None,
            "mode": report.mode or None if report else None,
            "computed": report.computed if report else 0,
            "reused": report.reused if report else 0,
            "failed": report.failed if report else 0,
            "checkpoints": report.checkpoints if report else 0,
            "kernel_seconds": report.seconds if report else 0.0,
            "kernel_cpu_seconds": report.usage.cpu_seconds if report else 0.0,
            "gpu_seconds": report.usage.gpu_seconds if report else 0.0,
            **(own if place == 0 else {"seconds": 0.0}),
        }
        for place, report in enumerate(reports or [None])
    ]
