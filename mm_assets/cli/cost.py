"""`mm cost`."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mm_assets.cli.options import DatasetVersion, Modalities
from mm_assets.cli.output import print_json, print_table, say
from mm_embed_kernels.errors import UserError
from mm_resources.costs.figures import format_amount, format_bytes, format_seconds

# Samples below which starting decides the cost of a run, and how much larger a cell may be than its runs.
_FEW, _FAR = 100, 1_000

if TYPE_CHECKING:
    from mm_resources.catalog import Catalog
    from mm_resources.cell import Cell
    from mm_resources.costs.cell_costs import CellCost
    from mm_resources.costs.prediction import Prediction
    from mm_resources.costs.prices import Prices


def cost(
    dataset_version: DatasetVersion,
    modalities: Modalities = None,
    predict: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="predict the cost of cells like these with N samples"),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="with --predict: cores that share the kernels; by default this machine's"),
    ] = None,
    json: Annotated[
        bool, typer.Option("--json", help="machine-readable output, with the figures of each run")
    ] = False,
) -> None:
    """Show the cost of a version by stage over all runs, and savings by rules, deduplication and cache."""
    from mm_resources.catalog import Catalog
    from mm_resources.costs.prices import load_prices
    from mm_resources.settings import Settings

    catalog, prices = Catalog.open(), load_prices(Settings.from_environment().prices)
    cells = catalog.registry.cells(dataset_version, modalities)
    if predict is None:
        _print_costs(catalog, dataset_version, cells, prices, json)
    else:
        _print_predictions(catalog, cells, prices, predict, workers, json)


def _print_costs(
    catalog: Catalog, dataset_version: str, cells: list[Cell], prices: Prices, json: bool
) -> None:
    from mm_resources.costs.cell_costs import cell_cost

    costs = [cell_cost(catalog, cell, prices) for cell in cells]
    total = _total(costs)
    if json:
        print_json(
            {
                "dataset_version": dataset_version,
                "prices": asdict(prices),
                "cells": [asdict(item) for item in costs],
                "total": total,
            }
        )
        return
    for item in costs:
        _print_cost(item, prices)
    if len(costs) > 1:
        say(f"in all: {_summary(total, prices)}")


def _total(cells: list[CellCost]) -> dict[str, Any]:
    price, published = sum(item.price for item in cells), sum(item.published for item in cells)
    return {
        "price": price,
        "published": published,
        "per_1000_published": 1000 * price / published if published else None,
        "stored_bytes": sum(item.stored_bytes for item in cells),
        "stored_month": sum(item.stored_month for item in cells),
        "avoided": sum(part.price for item in cells for part in item.savings.values()),
    }


def _print_cost(item: CellCost, prices: Prices) -> None:
    rows = [
        {
            "stage": stage["stage"],
            "in": stage["samples_in"],
            "out": stage["samples_out"],
            "computed": stage["computed"],
            "reused": stage["reused"],
            "wall s": stage["seconds"],
            "CPU s": stage["cpu_seconds"],
            "GPU s": stage["gpu_seconds"],
            "MB read": stage["bytes_read"] / 1e6,
            "MB written": stage["bytes_written"] / 1e6,
            "peak MiB": stage["peak_bytes"] >> 20,
            prices.currency: f"{stage['price']:.6f}",
        }
        for stage in item.stages
    ]
    if not rows:
        say(f"{item.modality}: nothing ran yet")
        return
    print_table(
        f"{item.modality}: cost over all runs; in and out: samples of the last one; "
        "computed and reused: rows of kernels, where a stage ran",
        rows,
    )
    saved = [
        {"by": cause, "count": part.count, "s": float(part.seconds), prices.currency: f"{part.price:.6f}"}
        for cause, part in item.savings.items()
    ]
    per_sample = f"{format_amount(item.per_kept_sample)} {prices.currency}"
    print_table(f"{item.modality}: saved, at {per_sample} for a kept sample", saved)
    say(f"{item.modality}: {_summary(vars(item), prices)}")


def _summary(figures: dict[str, Any], prices: Prices) -> str:
    each = (
        f"{format_amount(figures['per_1000_published'])} for 1,000 published samples"
        if figures["published"]
        else "nothing published"
    )
    stored = (
        f"{format_bytes(figures['stored_bytes'])} stored at {format_amount(figures['stored_month'])} a month"
    )
    return f"{format_amount(figures['price'])} {prices.currency}, {each}; {stored}"


def _print_predictions(
    catalog: Catalog, cells: list[Cell], prices: Prices, samples: int, workers: int | None, json: bool
) -> None:
    from mm_resources.costs.prediction import predict_cost

    predictions: list[Prediction] = []
    unknown: dict[str, str] = {}
    for cell in cells:
        try:
            predictions.append(predict_cost(catalog, cell, prices, samples, workers))
        except UserError as error:  # Nothing was ever computed of such a cell: the others have costs.
            unknown[cell.modality] = str(error)
    if not predictions:
        raise UserError("; ".join(unknown.values()))
    if json:
        cells_as_json = [asdict(item) for item in predictions]
        print_json({"prices": asdict(prices), "cells": cells_as_json, "unknown": unknown})
        return
    for item in predictions:
        _print_prediction(item, prices)
    for reason in unknown.values():
        say(reason, file=sys.stderr)


def _print_prediction(item: Prediction, prices: Prices) -> None:
    rows = [
        {
            "stage": stage.stage,
            "wall s": stage.seconds,
            "fixed s": stage.fixed_seconds,
            "CPU s": stage.cpu_seconds,
            "GPU s": stage.gpu_seconds,
            "MB read": stage.bytes_read / 1e6,
            "MB written": stage.bytes_written / 1e6,
            "peak MiB": stage.peak_bytes >> 20,
            "commits": stage.commits,
            prices.currency: f"{stage.price:.6f}",
        }
        for stage in item.stages
    ]
    if unknown := _unknowns(item):
        say(f"{item.modality}: what this prediction cannot know:")
        for line in unknown:
            say(f"  {line}")
    sizes = ", ".join(f"{size:,}" for size in item.fitted_on)
    title = f"{item.modality}: {item.samples:,} samples on {item.workers} workers, fitted on runs of {sizes}"
    print_table(title, rows)
    say(
        f"{item.modality}: {format_seconds(item.seconds)}, {format_amount(item.price)} {prices.currency}, "
        f"{item.peak_bytes >> 20:,} MiB at the peak, {item.commits:,} commits, "
        f"{format_bytes(item.stored_bytes)} stored at {format_amount(item.stored_month)} a month"
    )
    if item.unseen_index:
        say(f"  {_index_note(item.unseen_index, item.index_seconds)}")
    for stage, power in item.steeper.items():
        say(f"  {stage} grew with the samples to the power {power:.2f}: it may take more than predicted")


def _unknowns(item: Prediction) -> list[str]:
    """Return what the recorded runs say nothing of: the fixed costs, and sizes far beyond theirs."""
    largest, lines = max(item.fitted_on), []
    if len(item.fitted_on) == 1:
        lines.append(f"all runs had one size, {largest:,} samples: fixed costs are unknown, all is scaled up")
    if largest < _FEW:
        lines.append(
            f"{largest:,} samples are few: starting took most of the time; backfill some {_FEW:,} first"
        )
    elif item.samples > _FAR * largest:
        lines.append(
            f"{item.samples:,} samples are {item.samples / largest:,.0f} times as many as any run had; "
            f"backfill a version of some {item.samples // _FAR:,} first"
        )
    return lines


def _index_note(index: str, seconds: float) -> str:
    unrecorded = f"at this size an {index} index is built, which no recorded run has done"
    if not seconds:
        return f"{unrecorded}; feature_table will take longer. Measuring it adds to feature_views."
    trial = f"estimate from a trial: {seconds:,.0f} s of feature_table's"
    return f"{unrecorded}; {trial}. Measuring it adds to feature_views."
