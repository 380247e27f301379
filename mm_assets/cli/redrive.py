"""TODO."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from mm_assets.cli.output import print_json, print_table

if TYPE_CHECKING:
    pass
from mm_assets.cli.options import DatasetVersion, ErrorClass, Json, Modality, Stage


def redrive(
    dataset_version: DatasetVersion,
    modality: Modality = None,
    stage: Stage = "",
    error_class: ErrorClass = "",
    override_gate: Annotated[
        str, typer.Option(metavar="REASON", help="publish although a gate is closed; the reason is recorded")
    ] = "",
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="show Dagster's log")] = False,
    json: Json = False,
) -> None:
    """Try failures again, and only them, permanent ones too; what passes goes on to the publish."""
    from mm_assets.cli.cell_runs import require_models, run_cells
    from mm_assets.operations.redrive import redrives
    from mm_resources.registry.registry import Registry
    from mm_resources.settings import Settings
    from mm_resources.storage.store import Store
    from mm_resources.tables.failure_events import FailureFilter

    store = Store(Settings.from_environment().store)
    chosen = FailureFilter(stage, error_class)
    found = redrives(store, dataset_version, Registry(store).cells(dataset_version, modality), chosen)
    if not found and not json:
        print(
            f"nothing to redrive: no failure of {dataset_version} may change; what its frozen listing refuses needs a new version"
        )
        return
    require_models(store, [item.cell for item in found])
    results = (
        run_cells(store, [item.cell for item in found], override_gate, verbose, json, chosen) if found else []
    )
    outcomes = [item.outcome(store) for item in found]
    if json:
        cells = [
            {**result.as_dict(), **vars(outcome)} for result, outcome in zip(results, outcomes, strict=True)
        ]
        print_json({"dataset_version": dataset_version, "cells": cells})
    else:
        rows = [
            {**vars(result), **vars(outcome), "run_id": result.run_id[:8]}
            for result, outcome in zip(results, outcomes, strict=True)
        ]
        print_table(
            f"{dataset_version}: failures tried again",
            rows,
            ["modality", "status", "tried", "passed", "failed", "seconds", "run_id"],
        )
        for result in results:
            if result.status in ("blocked", "failed"):
                print(f"{result.modality} is {result.status}: {result.reason}")
        if any(outcome.passed < outcome.tried for outcome in outcomes):
            print(f"what is left: mm failures {dataset_version}")
    if any(result.status in ("blocked", "failed") for result in results):
        raise typer.Exit(1)
