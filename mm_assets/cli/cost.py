"""`mm cost`."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mm_assets.cli.output import print_json, print_table

if TYPE_CHECKING:
    from mm_resources.cell import Cell
    from mm_resources.ledger.costs import CellCost
    from mm_resources.ledger.prices import Prices
    from mm_resources.storage.store import Store


def add_to(app: typer.Typer) -> None:
    app.command()(cost)


def cost(
    dataset_version: Annotated[str, typer.Argument(metavar="DATASET@VERSION")],
    modality: Annotated[str | None, typer.Option(help="only this modality")] = None,
    predict: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="what cells like these, of so many samples, would take"),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="cores that share their kernels; by default this machine's")
    ] = None,
    json: Annotated[
        bool, typer.Option("--json", help="machine-readable output, with the figures of each run")
    ] = False,
) -> None:
    """What a version cost, stage by stage, over all its runs, and what its rules, deduplication and the cache have spared."""
    from mm_resources.ledger.costs import cell_cost
    from mm_resources.ledger.prices import load_prices
    from mm_resources.registry.registry import Registry
    from mm_resources.settings import Settings
    from mm_resources.storage.store import Store

    settings = Settings.from_environment()
    store, prices = Store(settings.store), load_prices(settings.prices)
    cells = Registry(store).cells(dataset_version, modality)
    if predict is not None:
        _predict(store, cells, prices, predict, workers, json)
        return
    found = [cell_cost(store, cell, prices) for cell in cells]
    total = _total(found)
    if json:
        print_json(
            {
                "dataset_version": dataset_version,
                "prices": asdict(prices),
                "cells": [asdict(item) for item in found],
                "total": total,
            }
        )
        return
    for item in found:
        _print(item, prices)
    if len(found) > 1:
        print(f"in all: {_line(total, prices)}")


def _predict(
    store: Store, cells: list[Cell], prices: Prices, samples: int, workers: int | None, json: bool
) -> None:
    from mm_resources.ledger.prediction import predicted

    found = [predicted(store, cell, prices, samples, workers) for cell in cells]
    if json:
        print_json({"prices": asdict(prices), "cells": [asdict(item) for item in found]})
        return
    for item in found:
        rows = [
            {
                "stage": stage.stage,
                "wall s": stage.seconds,
                "of them fixed": stage.fixed_seconds,
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
        fitted = ", ".join(f"{size:,}" for size in item.fitted_on)
        print_table(
            f"{item.modality}: {item.samples:,} samples on {item.workers} workers, by runs of {fitted}", rows
        )
        print(
            f"{item.modality}: {item.seconds:,.0f} s, {item.price:.4g} {prices.currency}, {item.peak_bytes >> 20:,} MiB at the peak, "
            f"{item.commits:,} commits, {item.stored_bytes / 1e9:.4g} GB stored at {item.stored_month:.3g} a month"
        )
        if len(item.fitted_on) == 1:
            print(
                "  all runs had one size, so that nothing is known of fixed costs: all of it is taken to grow with the samples"
            )
        if item.unseen_index:
            tried = f"by a trial here, it takes {item.index_seconds:,.0f} s of feature_table's"
            taken = tried if item.index_seconds else "feature_table takes more"
            print(
                f"  so many rows get an index ({item.unseen_index}) that no run built: {taken}; feature_views takes more to measure it"
            )
        for stage, power in item.steeper.items():
            print(
                f"  {stage} grew faster than the samples, with their power {power:.2f}: it may take more than this line says"
            )


def _total(cells: list[CellCost]) -> dict[str, Any]:
    price, published = sum(item.price for item in cells), sum(item.published for item in cells)
    return {
        "price": price,
        "published": published,
        "per_1000_published": 1000 * price / published if published else None,
        "stored_bytes": sum(item.stored_bytes for item in cells),
        "stored_month": sum(item.stored_month for item in cells),
        "avoided": sum(part.price for item in cells for part in item.spared.values()),
    }


def _print(item: CellCost, prices: Prices) -> None:
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
        print(f"{item.modality}: nothing ran yet")
        return
    print_table(f"{item.modality}: what it cost, over all runs", rows)
    spared = [
        {"by": cause, "count": part.count, "s": float(part.seconds), prices.currency: f"{part.price:.6f}"}
        for cause, part in item.spared.items()
    ]
    print_table(
        f"{item.modality}: what was spared, at {item.per_kept_sample:.3g} {prices.currency} for a kept sample",
        spared,
    )
    print(f"{item.modality}: {_line(vars(item), prices)}")


def _line(figures: dict[str, Any], prices: Prices) -> str:
    each = (
        f", {figures['per_1000_published']:.4g} for 1,000 published samples"
        if figures["published"]
        else ", nothing published"
    )
    stored = f"{figures['stored_bytes'] / 1e9:.4g} GB stored at {figures['stored_month']:.3g} a month"
    return f"{figures['price']:.4g} {prices.currency}{each}; {stored}"
