"""`mm redrive`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from mm_assets.cli.cell_runs import exit_code, require_models, run_cells
from mm_assets.cli.options import (
    DatasetVersion,
    ErrorClass,
    Json,
    Modalities,
    OverrideGate,
    Stage,
    Verbose,
    check_choice,
)
from mm_assets.cli.output import print_json, print_table, say

if TYPE_CHECKING:
    from mm_assets.operations.backfill import CellResult
    from mm_assets.operations.redrive import Outcome


# Status of a cell all of whose retries failed, whatever its run published.
_FAILED_AGAIN = "failed again"


def redrive(
    dataset_version: DatasetVersion,
    modalities: Modalities = None,
    stage: Stage = "",
    error_class: ErrorClass = "",
    override_gate: OverrideGate = "",
    verbose: Verbose = False,
    json: Json = False,
) -> None:
    """Retry the selected failures, permanent ones included, and publish the samples that succeed."""
    from mm_assets.operations.redrive import select_redrives
    from mm_embed_kernels.contracts.pipeline import FAILURE_STAGES
    from mm_resources.catalog import Catalog
    from mm_resources.storage.patience import read_patiently
    from mm_resources.tables.failure_events import FailureFilter

    if stage:
        check_choice("--stage", stage, FAILURE_STAGES)
    catalog, chosen = Catalog.open(), FailureFilter(stage, error_class)
    selected = select_redrives(
        catalog,
        dataset_version,
        read_patiently(lambda: catalog.registry.cells(dataset_version, modalities)),
        chosen,
    )
    if not selected and not json:
        say(
            f"nothing to redrive: a retry cannot change any failure of {dataset_version}; "
            "samples that its frozen listing rejects need a new version"
        )
        return
    cells = [item.cell for item in selected]
    require_models(catalog, cells)
    results = run_cells(catalog, cells, override_gate, verbose, json, chosen) if cells else []
    outcomes = [item.outcome(catalog) for item in selected]
    if json:
        pairs = zip(results, outcomes, strict=True)
        described = [{**result.as_dict(), **vars(outcome)} for result, outcome in pairs]
        print_json({"dataset_version": dataset_version, "cells": described})
    else:
        _print_outcomes(dataset_version, results, outcomes)
    if code := exit_code(results):
        raise typer.Exit(code)


def _status(result: CellResult, outcome: Outcome) -> str:
    """Return the status of a cell's run, or that no retry has changed anything."""
    ran = result.status not in ("blocked", "failed", "busy")
    return _FAILED_AGAIN if ran and outcome.tried and outcome.failed == outcome.tried else result.status


def _print_outcomes(dataset_version: str, results: list[CellResult], outcomes: list[Outcome]) -> None:
    rows = [
        {
            **vars(result),
            **vars(outcome),
            "status": _status(result, outcome),
            "run_id": result.run_id[:8],
        }
        for result, outcome in zip(results, outcomes, strict=True)
    ]
    columns = ["modality", "status", "tried", "passed", "failed", "seconds", "run_id"]
    print_table(f"{dataset_version}: retried failures", rows, columns)
    for result, outcome in zip(results, outcomes, strict=True):
        if _status(result, outcome) == _FAILED_AGAIN:
            say(f"{result.modality}: all {outcome.tried:,} retried failures failed again")
        if result.status in ("blocked", "failed", "busy"):
            say(f"{result.modality} is {result.status}: {result.reason}")
    if any(outcome.passed < outcome.tried for outcome in outcomes):
        say(f"remaining failures: mm failures {dataset_version}")
