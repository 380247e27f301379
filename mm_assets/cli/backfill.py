"""`mm backfill`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mm_assets.cli.cell_runs import exit_code, print_results, require_models, run_cells
from mm_assets.cli.options import DatasetVersion, Json, Modalities, OverrideGate, Verbose, check_choice
from mm_assets.cli.output import print_json, print_table, say
from mm_embed_kernels.errors import UserError
from mm_resources.costs.figures import format_amount

if TYPE_CHECKING:
    from mm_assets.operations.backfill import CellResult
    from mm_assets.operations.backfill_plan import KernelPlan
    from mm_resources.catalog import Catalog
    from mm_resources.cell import Cell
    from mm_resources.costs.prices import Prices

_MODES = ("auto", "inline", "ray")
_DAEMON = '`eval "$(mm env)" && dagster dev -m mm_assets.definitions`'


def backfill(  # noqa: PLR0913 - one parameter for each option
    dataset_version: DatasetVersion,
    modalities: Modalities = None,
    plan: Annotated[
        bool, typer.Option(help="print the rows to compute and to reuse; compute nothing")
    ] = False,
    override_gate: OverrideGate = "",
    mode: Annotated[str, typer.Option(help="auto (by estimated work), inline or ray")] = "auto",
    ray_address: Annotated[str, typer.Option(help="run on this Ray cluster instead of a local one")] = "",
    failed_only: Annotated[
        bool,
        typer.Option(help="only cells that are unpublished, blocked, or have retryable failures"),
    ] = False,
    launch: Annotated[
        bool, typer.Option(help="submit the cells to the daemon as one Dagster backfill, and return")
    ] = False,
    wait: Annotated[bool, typer.Option(help="with --launch: wait until the backfill ends")] = False,
    verbose: Verbose = False,
    json: Json = False,
) -> None:
    """Materialize a dataset version through Dagster, cell by cell; compute only missing results."""
    from mm_resources.catalog import Catalog
    from mm_resources.storage.patience import read_patiently

    check_choice("--mode", mode, _MODES)
    if wait and not launch:
        raise UserError("--wait is an option of --launch: add --launch")
    catalog = Catalog.open()
    cells = read_patiently(lambda: catalog.registry.cells(dataset_version, modalities))
    if failed_only:
        cells = _failed_cells(catalog, dataset_version, cells)
    if plan:
        _print_plan(catalog, dataset_version, cells, json)
        return
    require_models(catalog, cells)
    if launch:
        results = _launch(catalog, cells, override_gate, wait, json)
    else:
        results = run_cells(catalog, cells, override_gate, verbose, json, mode=mode, address=ray_address)
    if results is not None:
        _print_results(dataset_version, results, json)


def _failed_cells(catalog: Catalog, dataset_version: str, cells: list[Cell]) -> list[Cell]:
    from mm_assets.operations.backfill import unfinished_cells

    failed = unfinished_cells(catalog, cells)
    if not failed:
        raise UserError(f"no cell of {dataset_version} has failed")
    return failed


def _launch(
    catalog: Catalog, cells: list[Cell], override: str, wait: bool, json: bool
) -> list[CellResult] | None:
    """Submit the cells to the daemon; return their results with `wait`, else None at once."""
    from mm_assets.dagster_private import backfill_daemon_is_healthy
    from mm_assets.definitions import defs
    from mm_assets.operations import daemon_backfill
    from mm_assets.operations.dagster_home import open_instance
    from mm_resources.settings import Settings

    instance = open_instance(Settings.from_environment())
    alive = backfill_daemon_is_healthy(instance)
    if wait and not alive:
        raise UserError(f"no daemon processes backfills: start one with {_DAEMON}, or omit --launch")
    launched = daemon_backfill.launch(instance, defs, cells, override)
    state = "" if alive else ", which is not running: start it with {_DAEMON}"
    _print_progress(f"submitted backfill {launched.backfill_id} of {len(cells)} cells to the daemon{state}")
    if wait:
        return list(daemon_backfill.wait(instance, catalog, launched, _print_progress))
    if json:
        print_json({"backfill_id": launched.backfill_id, "cells": [cell.partition_key for cell in cells]})
    return None


def _print_progress(line: str) -> None:
    say(line, file=sys.stderr)


def _print_results(dataset_version: str, results: list[CellResult], json: bool) -> None:
    if json:
        print_json({"dataset_version": dataset_version, "cells": [result.as_dict() for result in results]})
    else:
        print_results(dataset_version, results)
    if code := exit_code(results):
        raise typer.Exit(code)


def _print_plan(catalog: Catalog, dataset_version: str, cells: list[Cell], json: bool) -> None:
    from mm_assets.operations.backfill_plan import plan_cell
    from mm_embed_kernels.modalities import get
    from mm_resources.costs.prices import load_prices
    from mm_resources.resources import default_embedder
    from mm_resources.settings import Settings

    prices = load_prices(Settings.from_environment().prices)
    plans = {cell.modality: plan_cell(catalog, cell, default_embedder(get(cell.modality))) for cell in cells}
    if json:
        described = [_plan_as_json(modality, items, prices) for modality, items in plans.items()]
        print_json({"dataset_version": dataset_version, "cells": described})
        return
    rows = [
        {
            "modality": modality,
            "kernel": item.kernel,
            "computed": item.computed,
            "reused": item.reused,
            "seconds": item.seconds,
        }
        for modality, items in plans.items()
        for item in items
    ]
    print_table(f"plan for {dataset_version}; nothing was computed", rows)
    planned = [item for items in plans.values() for item in items]
    seconds, price = sum(item.work.seconds for item in planned), sum(item.price(prices) for item in planned)
    say(
        f"estimated work: {seconds:,.0f} s, plus a few seconds to start; "
        f"{format_amount(price)} {prices.currency} of compute"
    )


def _plan_as_json(modality: str, items: list[KernelPlan], prices: Prices) -> dict[str, Any]:
    return {
        "modality": modality,
        "computed": {item.kernel: item.computed for item in items},
        "reused": {item.kernel: item.reused for item in items},
        "seconds": round(sum(item.seconds for item in items), 1),
        "price": sum(item.price(prices) for item in items),
        "currency": prices.currency,
    }
