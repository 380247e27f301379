"""Recorded costs of stages in runs that computed their whole cell, and their growth with the samples."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from mm_embed_kernels import sql
from mm_embed_kernels.contracts.pipeline import STAGES
from mm_resources.catalog import Catalog
from mm_resources.cell import Cell

# Runs that took a larger share of their rows from the cache are left out: they do not show what a cell costs.
_MAX_REUSED = 0.05
# Above this power of the number of samples, a stage counts as growing faster than linearly.
LINEAR = 1.1
# Shorter times are too noisy for a power, seconds.
_NOISE = 0.5


@dataclass(frozen=True, kw_only=True)
class StageCost:
    """The resources that a stage takes.

    Attributes:
        stage: asset.
        seconds: wall time.
        kernel_cpu_seconds: part of `cpu_seconds` that is spent in kernels and shared by workers.
        cpu_seconds, gpu_seconds: time of all CPUs and all GPUs.
        bytes_read, bytes_written: traffic with store and sources.
        bytes_transferred: bytes from sources beyond the machine.
        peak_bytes: peak memory of all processes.
        commits: commits to the cache and of the stage's table.
    """

    stage: str
    seconds: float
    kernel_cpu_seconds: float
    cpu_seconds: float
    gpu_seconds: float
    bytes_read: int
    bytes_written: int
    bytes_transferred: int
    peak_bytes: int
    commits: int


@dataclass(frozen=True, kw_only=True)
class RecordedCost(StageCost):
    """The resources that a stage took in one run.

    Attributes:
        cell: cell of the run.
        run_id: Dagster run.
        samples: samples that the cell listed.
        kernel_seconds: part of `seconds` that was spent in kernels.
    """

    cell: Cell
    run_id: str
    samples: int
    kernel_seconds: float


def recorded_costs(catalog: Catalog, modality: str, like: Cell | None = None) -> list[RecordedCost]:
    """Return the costs of all stages of a modality, in runs that computed nearly all of their rows.

    Args:
        modality: modality of the cells.
        like: a cell whose latest embedders the runs must have had; None for any.
    """
    rows = sql.fetch(_COSTS, ledger=catalog.ledger.read(f"modality = '{modality}'")).to_pylist()
    own = [
        row["embedders"]
        for row in rows
        if like and (row["dataset"], row["version"]) == (like.dataset, like.version)
    ]
    embedders = own[-1] if own else None
    return [
        RecordedCost(
            cell=Cell(row.pop("dataset"), row.pop("version"), modality),
            **{name: value for name, value in row.items() if name != "embedders"},
        )
        for row in rows
        if not embedders or row["embedders"] == embedders
    ]


def growth_powers(costs: Sequence[RecordedCost], figure: str = "seconds") -> dict[str, float]:
    """Return, by stage, the power of the number of samples with which a figure grew; 1 is linear.

    The power is that between the two largest numbers of samples; stages with one size or little time are left
    out.

    Args:
        figure: ``seconds`` or ``cpu_seconds``.
    """
    powers = {}
    for stage in STAGES:
        times: dict[int, float] = {}
        for cost in costs:
            if cost.stage == stage:
                times[cost.samples] = min(getattr(cost, figure), times.get(cost.samples, math.inf))
        *_, less, more = [0, 0, *sorted(times)]
        if less and times[more] > _NOISE:
            powers[stage] = math.log(times[more] / max(times[less], 1e-9)) / math.log(more / less)
    return powers


# Figures that older ledgers lack count as 0, and their CPU time as that of one busy core.
_COSTS = f"""
WITH entry AS MATERIALIZED (FROM ledger), run AS (
  SELECT run_id, dataset, version,
         max(greatest(coalesce(samples_in, 0), coalesce(samples_out, 0))) AS samples,
         array_to_string(list_sort(
           list(DISTINCT fingerprint) FILTER (stage = 'embeddings' AND fingerprint IS NOT NULL)
         ), ' ') AS embedders
  FROM entry GROUP BY ALL
  HAVING NOT bool_or(unchanged) AND sum(computed) > 0 AND sum(reused) <= {_MAX_REUSED} * sum(computed)
)
SELECT l.dataset, l.version, l.stage, l.run_id, r.samples::BIGINT AS samples, sum(l.seconds) AS seconds,
       sum(l.kernel_seconds) AS kernel_seconds,
       sum(coalesce(l.kernel_cpu_seconds, l.kernel_seconds)) AS kernel_cpu_seconds,
       coalesce(sum(l.cpu_seconds), sum(l.seconds)) AS cpu_seconds,
       coalesce(sum(l.gpu_seconds), 0) AS gpu_seconds,
       coalesce(sum(l.bytes_read), 0)::BIGINT AS bytes_read,
       coalesce(sum(l.bytes_written), 0)::BIGINT AS bytes_written,
       coalesce(sum(l.bytes_transferred), 0)::BIGINT AS bytes_transferred,
       coalesce(max(l.peak_bytes), 0)::BIGINT AS peak_bytes,
       (1 + sum(l.checkpoints))::BIGINT AS commits, any_value(r.embedders) AS embedders
FROM entry l JOIN run r USING (run_id, dataset, version) WHERE r.samples > 0
GROUP BY l.dataset, l.version, l.stage, l.run_id, r.samples ORDER BY max(l."at")
"""
