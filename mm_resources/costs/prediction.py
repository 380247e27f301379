"""What a cell of N samples would take on W workers, by what smaller ones have taken: rates and fixed costs out of the ledger.

Every figure of a stage is a line, a fixed part and a part for each sample, fitted to the runs of this store that computed a
cell of the same modality and embedders anew. Kernels share their part among the workers; all else runs in one process. Memory is
bounded by design, so that it is taken to grow with the logarithm of the samples. A vector index that none of the runs built is tried.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mm_embed_kernels import sql
from mm_embed_kernels.contracts.pipeline import STAGES
from mm_embed_kernels.errors import UserError
from mm_embed_kernels.kernels.base import Kernel
from mm_resources.catalog import Catalog
from mm_resources.cell import Cell
from mm_resources.costs.cell_costs import cell_cost
from mm_resources.costs.index_trial import Building, building
from mm_resources.costs.prices import Prices
from mm_resources.features.vector_indexes import index_for
from mm_resources.metering import Usage

# Runs that took more than this share of their rows from the cache say nothing of what a cell takes.
_REUSED = 0.05
# Above this power of the number of samples a stage is said to grow faster than it.
LINEAR = 1.1
# Times are not told apart below this, seconds.
_NOISE = 0.5
_NOTHING = Building(0.0, 0.0)


@dataclass(frozen=True, kw_only=True)
class Taken:
    """What a stage takes.

    Attributes:
        stage: asset.
        seconds: wall time.
        kernel_cpu_seconds: the part of `cpu_seconds` that kernels take, and that workers share.
        commits: to the cache and of the stage's table.
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
class Point(Taken):
    """What one stage took in a run that computed its cell anew.

    Attributes:
        samples: that the cell listed.
        kernel_seconds: the part of `seconds` that kernels took.
    """

    cell: Cell
    run_id: str
    samples: int
    kernel_seconds: float


@dataclass(frozen=True)
class Line:
    """A figure of a cell: ``fixed + each * samples``."""

    fixed: float
    each: float

    @staticmethod
    def fitted(points: Iterable[tuple[float, float]]) -> Line:
        """The line with the smallest relative errors among those that nowhere fall and begin at zero or more.

        Points of a single size say nothing of a fixed part: then all of it is taken to grow.
        """
        from scipy.optimize import nnls

        known = list(points)
        if len({samples for samples, _ in known}) < 2:
            return Line(
                0.0, sum(value for _, value in known) / max(1.0, sum(samples for samples, _ in known))
            )
        weight = [1 / max(value, 1e-6 * max(other for _, other in known), 1e-9) for _, value in known]
        rows = [[factor, factor * samples] for (samples, _), factor in zip(known, weight, strict=True)]
        (fixed, each), _ = nnls(
            rows, [factor * value for (_, value), factor in zip(known, weight, strict=True)]
        )
        return Line(float(fixed), float(each))

    def at(self, samples: float, workers: float = 1.0) -> float:
        """The figure for so many samples, when `workers` times as many share what grows."""
        return self.fixed + self.each * samples / workers


@dataclass(frozen=True, kw_only=True)
class Predicted(Taken):
    """One stage of a cell that was not run.

    Attributes:
        fixed_seconds: the part of `seconds` that is there however few the samples.
        alone_seconds: the part that no worker shares.
    """

    fixed_seconds: float
    alone_seconds: float
    price: float


@dataclass(frozen=True)
class Projection:
    """A cell that was not run.

    Attributes:
        fitted_on: samples of the runs that it was fitted on.
        seconds: of all stages, one after the other; the start of the command is in none of them. alone_seconds: see `Predicted`.
        peak_bytes: of the stage that takes most.
        stored_bytes: blobs, stage tables and feature tables; stored_month: the price of a month of them.
        steeper: stages whose time grew faster than the samples between the two largest runs, with the power.
        unseen_index: the vector index that so many rows get and none of the runs had, else None; index_seconds: of `feature_table`, what
            it takes to build it by a trial, 0 where nothing is published whose vectors' length would be known.
    """

    modality: str
    samples: int
    workers: int
    fitted_on: list[int]
    stages: list[Predicted]
    seconds: float
    alone_seconds: float
    price: float
    peak_bytes: int
    commits: int
    stored_bytes: int
    stored_month: float
    steeper: dict[str, float]
    unseen_index: str | None
    index_seconds: float


def points(catalog: Catalog, modality: str, like: Cell | None = None) -> list[Point]:
    """What the stages of all cells of a modality took, in runs that computed nearly all of their rows.

    Args:
        like: a cell whose embedders the runs must have had.
    """
    found = sql.fetch(_POINTS, ledger=catalog.ledger.read(f"modality = '{modality}'")).to_pylist()
    same = [
        row["embedders"]
        for row in found
        if like and (row["dataset"], row["version"]) == (like.dataset, like.version)
    ]
    wanted = same[-1] if same else None
    chosen = [row for row in found if not wanted or row["embedders"] == wanted]
    return [
        Point(
            cell=Cell(row.pop("dataset"), row.pop("version"), modality),
            **{name: value for name, value in row.items() if name != "embedders"},
        )
        for row in chosen
    ]


def predicted(
    catalog: Catalog, cell: Cell, prices: Prices, samples: int, workers: int | None = None
) -> Projection:
    """A cell like this one, of so many samples, on so many workers (cores, where kernels run on CPUs).

    Args:
        workers: by default those of this machine, which the runs in the ledger are taken to have had.

    Raises:
        UserError: when no run in the store computed such a cell anew.
    """
    known = points(catalog, cell.modality, cell)
    if not known:
        raise UserError(
            f"{cell.modality}: no run of {cell.dataset}@{cell.version} or of a cell like it computed its samples anew, so that nothing is "
            "known of what one takes; backfill a small version of it first, or two of different sizes"
        )
    here = len(os.sched_getaffinity(0))
    share = (workers or here) / here
    sizes = {point.cell: point.samples for point in known}
    index = index_for(samples)
    unseen = None if index in {index_for(size) for size in sizes.values()} else index
    built = _built(catalog, sizes, unseen, samples) if unseen else _NOTHING
    beside = {"feature_table": built}
    stages = [
        _stage(
            stage,
            [point for point in known if point.stage == stage],
            prices,
            samples,
            share,
            beside.get(stage, _NOTHING),
        )
        for stage in STAGES
    ]
    found = [stage for stage in stages if stage is not None]
    stored = round(
        Line.fitted((size, cell_cost(catalog, each, prices).stored_bytes) for each, size in sizes.items()).at(
            samples
        )
    )
    return Projection(
        modality=cell.modality,
        samples=samples,
        workers=workers or here,
        fitted_on=sorted({point.samples for point in known}),
        stages=found,
        seconds=sum(stage.seconds for stage in found),
        alone_seconds=sum(stage.alone_seconds for stage in found),
        price=sum(stage.price for stage in found),
        peak_bytes=max(stage.peak_bytes for stage in found),
        commits=sum(stage.commits for stage in found),
        stored_bytes=stored,
        stored_month=prices.stored(stored),
        unseen_index=unseen,
        index_seconds=built.seconds,
        steeper={stage: power for stage, power in powers(known).items() if power > LINEAR},
    )


def powers(known: Sequence[Point], figure: str = "seconds") -> dict[str, float]:
    """By stage, the power of the number of samples with which its time (or its ``cpu_seconds``) grew between the two largest sizes:
    1 is linear.
    """
    found = {}
    for stage in STAGES:
        times: dict[int, float] = {}
        for point in known:
            if point.stage == stage:
                times[point.samples] = min(getattr(point, figure), times.get(point.samples, math.inf))
        *_, less, more = [0, 0, *sorted(times)]
        if less and times[more] > _NOISE:
            found[stage] = math.log(times[more] / max(times[less], 1e-9)) / math.log(more / less)
    return found


def _built(catalog: Catalog, sizes: Mapping[Cell, int], index: str, samples: int) -> Building:
    """The index over each of the tables that the largest of the published cells would have, of so many samples."""
    for cell, size in sorted(sizes.items(), key=lambda item: -item[1]):
        if (pin := catalog.registry.pin(cell)) is not None:
            each = [
                building(index, table.dimension, round(table.rows * samples / size))
                for table in pin.tables
                if table.rows
            ]
            return Building(sum(one.seconds for one in each), sum(one.cpu_seconds for one in each))
    return _NOTHING


def _stage(
    stage: str, known: list[Point], prices: Prices, samples: int, share: float, built: Building
) -> Predicted | None:
    """What a stage takes; None where no run had it.

    Args:
        built: comes to its lines.
    """
    if not known:
        return None

    def line(figure: str) -> Line:
        return Line.fitted((point.samples, getattr(point, figure)) for point in known)

    kernels = line("kernel_seconds")
    rest = Line.fitted((point.samples, max(0.0, point.seconds - point.kernel_seconds)) for point in known)
    # Small runs have one commit of results each, whatever their size.
    checkpoints = (
        math.ceil(samples / Kernel.checkpoint_rows) if any(point.kernel_seconds for point in known) else 0
    )
    figures: dict[str, Any] = {name: line(name).at(samples) for name in ("cpu_seconds", "gpu_seconds")}
    figures["cpu_seconds"] += built.cpu_seconds
    figures |= {
        name: round(line(name).at(samples)) for name in ("bytes_read", "bytes_written", "bytes_transferred")
    }
    return Predicted(
        stage=stage,
        seconds=rest.at(samples) + kernels.at(samples, share) + built.seconds,
        fixed_seconds=rest.fixed + kernels.fixed,
        alone_seconds=rest.at(samples) + kernels.fixed + built.seconds,
        kernel_cpu_seconds=line("kernel_cpu_seconds").at(samples),
        peak_bytes=round(
            Line.fitted((math.log2(point.samples), point.peak_bytes) for point in known).at(
                math.log2(samples)
            )
        ),
        commits=max(math.ceil(line("commits").at(samples)), 1 + checkpoints),
        price=prices.of(Usage(**figures)),
        **figures,
    )


# What was not measured in older ledgers counts as nothing.
_POINTS = f"""
WITH entry AS MATERIALIZED (FROM ledger), run AS (
  SELECT run_id, dataset, version, max(greatest(coalesce(samples_in, 0), coalesce(samples_out, 0))) AS samples,
         array_to_string(list_sort(list(DISTINCT fingerprint) FILTER (stage = 'embeddings' AND fingerprint IS NOT NULL)), ' ') AS embedders
  FROM entry GROUP BY ALL
  HAVING NOT bool_or(unchanged) AND sum(computed) > 0 AND sum(reused) <= {_REUSED} * sum(computed)
)
SELECT l.dataset, l.version, l.stage, l.run_id, r.samples::BIGINT AS samples, sum(l.seconds) AS seconds,
       sum(l.kernel_seconds) AS kernel_seconds, sum(coalesce(l.kernel_cpu_seconds, l.kernel_seconds)) AS kernel_cpu_seconds,
       coalesce(sum(l.cpu_seconds), sum(l.seconds)) AS cpu_seconds, coalesce(sum(l.gpu_seconds), 0) AS gpu_seconds,
       coalesce(sum(l.bytes_read), 0)::BIGINT AS bytes_read, coalesce(sum(l.bytes_written), 0)::BIGINT AS bytes_written,
       coalesce(sum(l.bytes_transferred), 0)::BIGINT AS bytes_transferred, coalesce(max(l.peak_bytes), 0)::BIGINT AS peak_bytes,
       (1 + sum(l.checkpoints))::BIGINT AS commits, any_value(r.embedders) AS embedders
FROM entry l JOIN run r USING (run_id, dataset, version) WHERE r.samples > 0
GROUP BY l.dataset, l.version, l.stage, l.run_id, r.samples ORDER BY max(l."at")
"""
