"""`mm backfill`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from mm_assets.cli.cell_runs import print_results, require_models, run_cells
from mm_assets.cli.output import print_json, print_table

if TYPE_CHECKING:
    from mm_assets.operations.backfill import CellResult
    from mm_resources.cell import Cell
    from mm_resources.storage.store import Store


def add_to(app: typer.Typer) -> None:
    app.command()(backfill)


def backfill(
    dataset_version: Annotated[str, typer.Argument(metavar="DATASET@VERSION")],
    modality: Annotated[str | None, typer.Option(help="only this modality")] = None,
    plan: Annotated[bool, typer.Option(help="say what would be computed and reused, and do nothing")] = False,
    override_gate: Annotated[
        str, typer.Option(metavar="REASON", help="publish although a gate is closed; the reason is recorded")
    ] = "",
    mode: Annotated[str, typer.Option(help="auto (by estimated work), inline or ray")] = "auto",
    ray_address: Annotated[str, typer.Option(help="run on this Ray cluster instead of a local one")] = "",
    failed_only: Annotated[
        bool,
        typer.Option(help="only cells that are not published, are blocked, or have failures that may pass"),
    ] = False,
    launch: Annotated[
        bool, typer.Option(help="hand the cells to the daemon as one Dagster backfill, and return")
    ] = False,
    wait: Annotated[bool, typer.Option(help="with --launch: follow the backfill to its end")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="show Dagster's log")] = False,
    json: Annotated[bool, typer.Option("--json", help="machine-readable output")] = False,
) -> None:
    """Materialize a dataset version, cell by cell, through Dagster; only what changed is computed."""
    from mm_embed_kernels.errors import UserError
    from mm_resources.registry.registry import Registry
    from mm_resources.settings import Settings
    from mm_resources.storage.store import Store

    if mode not in ("auto", "inline", "ray"):
        raise UserError(f"--mode {mode!r} is not auto, inline or ray")
    settings = Settings.from_environment()
    store = Store(settings.store)
    cells = Registry(store).cells(dataset_version, modality)
    if wait and not launch:
        raise UserError("--wait follows a backfill that the daemon executes: add --launch")
    if failed_only:
        from mm_assets.operations.backfill import unsound

        cells = unsound(store, cells)
        if not cells:
            raise UserError(f"no cell of {dataset_version} has failed")
    if plan:
        _print_plan(store, dataset_version, cells, json)
        return
    require_models(store, cells)
    if launch:
        launched = _launch(store, cells, override_gate, wait, json)
        if launched is None:
            return
        results = launched
    else:
        results = run_cells(store, cells, override_gate, verbose, json, mode=mode, address=ray_address)
    if json:
        print_json({"dataset_version": dataset_version, "cells": [result.as_dict() for result in results]})
    else:
        print_results(dataset_version, results)
    if any(result.status in ("blocked", "failed") for result in results):
        raise typer.Exit(1)


def _launch(
    store: Store, cells: list[Cell], override: str, wait: bool, json: bool
) -> list[CellResult] | None:
    """Hand the cells to the daemon; their results if they are waited for."""
    from mm_assets.definitions import defs
    from mm_assets.operations import daemon_backfill as launching
    from mm_assets.operations.dagster_home import open_instance
    from mm_embed_kernels.errors import UserError
    from mm_resources.settings import Settings

    instance = open_instance(Settings.from_environment())
    alive = launching.daemon_is_alive(instance)
    if wait and not alive:
        raise UserError("no daemon works on backfills: start one with `make ui`, or leave --launch out")
    launched = launching.launch(instance, defs, cells, override)
    told = f"backfill {launched.backfill_id} of {len(cells)} cells is with the daemon"
    print(told if alive else f"{told}, which is not running: start it with `make ui`", file=sys.stderr)
    if wait:
        return list(launching.wait(instance, store, launched, lambda line: print(line, file=sys.stderr)))
    if json:
        print_json({"backfill_id": launched.backfill_id, "cells": [cell.partition_key for cell in cells]})
    return None


def _print_plan(store: Store, dataset_version: str, cells: list[Cell], json: bool) -> None:
    from mm_assets.operations.backfill_plan import plan_cell
    from mm_embed_kernels.modalities import get
    from mm_resources.ledger.prices import load_prices
    from mm_resources.resources import default_embedder
    from mm_resources.settings import Settings

    prices = load_prices(Settings.from_environment().prices)
    plans = {cell.modality: plan_cell(store, cell, default_embedder(get(cell.modality))) for cell in cells}
    if json:
        found = [
            {
                "modality": modality,
                "computed": {item.kernel: item.computed for item in items},
                "reused": {item.kernel: item.reused for item in items},
                "seconds": round(sum(item.seconds for item in items), 1),
                "price": sum(item.price(prices) for item in items),
                "currency": prices.currency,
            }
            for modality, items in plans.items()
        ]
        print_json({"dataset_version": dataset_version, "cells": found})
        return
    planned = [(modality, item) for modality, items in plans.items() for item in items]
    rows = [
        {
            "modality": modality,
            "kernel": item.kernel,
            "computed": item.computed,
            "reused": item.reused,
            "seconds": item.seconds,
        }
        for modality, item in planned
    ]
    print_table(f"plan for {dataset_version}: nothing was done", rows)
    price = sum(item.price(prices) for _, item in planned)
    print(
        f"estimated work: {sum(item.work.seconds for _, item in planned):,.0f} s beside a few seconds of start, "
        f"{price:,.4g} {prices.currency} of computing"
    )
