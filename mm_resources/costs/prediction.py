"""Prediction of the cost of a cell of N samples on W workers, from the recorded costs of smaller cells.

Every figure of a stage is a line, a fixed part and a part for each sample, fitted to the runs of the store
that computed a cell of the same modality and embedders from scratch. The kernels' part is shared among the
workers; all else runs in one process. Memory is bounded by design, so it is taken to grow with the logarithm
of the samples. The build time of a vector index that none of the runs had is measured in a trial.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from mm_embed_kernels.contracts.pipeline import STAGES
from mm_embed_kernels.errors import UserError
from mm_embed_kernels.inference.runtime import cpu_count
from mm_embed_kernels.kernels.base import Kernel
from mm_resources.catalog import Catalog
from mm_resources.cell import Cell
from mm_resources.costs.cell_costs import cell_cost
from mm_resources.costs.index_trial import BuildTime, estimate_build
from mm_resources.costs.prices import Prices
from mm_resources.costs.run_history import LINEAR, RecordedCost, StageCost, growth_powers, recorded_costs
from mm_resources.features.vector_indexes import index_for
from mm_resources.metering import Usage

_NO_BUILD = BuildTime(0.0, 0.0)


@dataclass(frozen=True)
class Line:
    """A figure of a cell: ``fixed + each * samples``."""

    fixed: float
    each: float

    @staticmethod
    def fit(points: Iterable[tuple[float, float]]) -> Line:
        """Return the line through (samples, value) points with the least relative error and no negative part.

        Points of a single size do not determine a fixed part: then the whole value is taken to grow.
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
        """Return the figure for so many samples; `workers` times as many workers share the growing part."""
        return self.fixed + self.each * samples / workers


@dataclass(frozen=True, kw_only=True)
class PredictedCost(StageCost):
    """The predicted resources of one stage.

    Attributes:
        fixed_seconds: part of `seconds` that is independent of the number of samples.
        alone_seconds: part of `seconds` that workers do not share.
        price: price of the stage.
    """

    fixed_seconds: float
    alone_seconds: float
    price: float


@dataclass(frozen=True)
class Prediction:
    """The predicted cost of a cell.

    Attributes:
        modality: modality of the cell.
        samples: number of samples.
        workers: number of workers.
        fitted_on: numbers of samples of the runs that the lines are fitted to.
        stages: cost of each stage.
        seconds: wall time of all stages, one after the other, without the start of the command.
        alone_seconds: part of `seconds` that workers do not share.
        price: price of all stages.
        peak_bytes: peak memory of the stage that takes most.
        commits: commits of all stages.
        stored_bytes: size of blobs, stage tables and feature tables.
        stored_month: price of storing them for a month.
        steeper: stages whose time grew faster than the samples between the two largest runs, with the power.
        unseen_index: the vector index of so many rows, if none of the runs built it, else None.
        index_seconds: build time of this index by a trial, part of ``feature_table``; 0 where no published
            cell states the dimension of the vectors.
    """

    modality: str
    samples: int
    workers: int
    fitted_on: list[int]
    stages: list[PredictedCost]
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


def predict_cost(
    catalog: Catalog, cell: Cell, prices: Prices, samples: int, workers: int | None = None
) -> Prediction:
    """Predict the cost of a cell like a given one, with another number of samples.

    Args:
        cell: cell whose modality and embedders are taken.
        samples: number of samples.
        workers: cores that share the kernels; by default those of this machine, on which the recorded runs
            are taken to have run.

    Raises:
        UserError: when no run in the store computed such a cell from scratch.
    """
    history = recorded_costs(catalog, cell.modality, cell)
    if not history:
        raise UserError(
            f"{cell.modality}: no run of {cell.dataset_version} or of a cell like it "
            "computed its samples anew, so its cost is unknown; "
            "backfill a small version of it first, or two of different sizes"
        )
    cores = cpu_count()
    workers = workers or cores
    sizes = {cost.cell: cost.samples for cost in history}
    index = index_for(samples)
    unseen = None if index in {index_for(size) for size in sizes.values()} else index
    build = _estimate_index(catalog, sizes, unseen, samples) if unseen else _NO_BUILD
    builds = {"feature_table": build}
    stages = [
        _predict_stage(costs, prices, samples, workers / cores, builds.get(stage, _NO_BUILD))
        for stage in STAGES
        if (costs := [cost for cost in history if cost.stage == stage])
    ]
    stored = _predict_storage(catalog, sizes, prices, samples)
    return Prediction(
        modality=cell.modality,
        samples=samples,
        workers=workers,
        fitted_on=sorted({cost.samples for cost in history}),
        stages=stages,
        seconds=sum(stage.seconds for stage in stages),
        alone_seconds=sum(stage.alone_seconds for stage in stages),
        price=sum(stage.price for stage in stages),
        peak_bytes=max(stage.peak_bytes for stage in stages),
        commits=sum(stage.commits for stage in stages),
        stored_bytes=stored,
        stored_month=prices.of_storage(stored),
        unseen_index=unseen,
        index_seconds=build.seconds,
        steeper={stage: power for stage, power in growth_powers(history).items() if power > LINEAR},
    )


def _predict_storage(catalog: Catalog, sizes: Mapping[Cell, int], prices: Prices, samples: int) -> int:
    """Predict the stored bytes from those of the recorded cells."""
    stored = ((size, cell_cost(catalog, cell, prices).stored_bytes) for cell, size in sizes.items())
    return round(Line.fit(stored).at(samples))


def _estimate_index(catalog: Catalog, sizes: Mapping[Cell, int], index: str, samples: int) -> BuildTime:
    """Estimate the build time of the indexes of all tables, from the largest published cell."""
    for cell, size in sorted(sizes.items(), key=lambda item: -item[1]):
        if (pin := catalog.registry.pins.get(cell)) is not None:
            builds = [
                estimate_build(index, table.dimension, round(table.rows * samples / size))
                for table in pin.tables
                if table.rows
            ]
            return BuildTime(
                sum(build.seconds for build in builds), sum(build.cpu_seconds for build in builds)
            )
    return _NO_BUILD


def _predict_stage(
    history: list[RecordedCost], prices: Prices, samples: int, share: float, build: BuildTime
) -> PredictedCost:
    """Predict the cost of a stage from its recorded costs.

    Args:
        share: workers, as a multiple of those of the recorded runs.
        build: build time of an index that the recorded runs did not have; added to the lines.
    """

    def line(figure: str) -> Line:
        return Line.fit((cost.samples, getattr(cost, figure)) for cost in history)

    kernels = line("kernel_seconds")
    rest = Line.fit((cost.samples, max(0.0, cost.seconds - cost.kernel_seconds)) for cost in history)
    memory = Line.fit((math.log2(cost.samples), cost.peak_bytes) for cost in history)
    # Small runs commit their results once, whatever their size; large ones at every checkpoint.
    checkpoints = (
        math.ceil(samples / Kernel.checkpoint_rows) if any(cost.kernel_seconds for cost in history) else 0
    )
    figures: dict[str, Any] = {name: line(name).at(samples) for name in ("cpu_seconds", "gpu_seconds")}
    figures["cpu_seconds"] += build.cpu_seconds
    figures |= {
        name: round(line(name).at(samples)) for name in ("bytes_read", "bytes_written", "bytes_transferred")
    }
    return PredictedCost(
        stage=history[0].stage,
        seconds=rest.at(samples) + kernels.at(samples, share) + build.seconds,
        fixed_seconds=rest.fixed + kernels.fixed,
        alone_seconds=rest.at(samples) + kernels.fixed + build.seconds,
        kernel_cpu_seconds=line("kernel_cpu_seconds").at(samples),
        peak_bytes=round(memory.at(math.log2(samples))),
        commits=max(math.ceil(line("commits").at(samples)), 1 + checkpoints),
        price=prices.of(Usage(**figures)),
        **figures,
    )
