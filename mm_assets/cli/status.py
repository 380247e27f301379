"""TODO."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from mm_assets.cli.options import Json
from mm_assets.cli.output import print_json, print_table


def status(
    dataset_version: Annotated[str, typer.Argument(metavar="DATASET@VERSION")],
    modality: Annotated[str | None, typer.Option(help="only this modality")] = None,
    drift: Annotated[
        bool,
        typer.Option(
            "--drift", help="list the sources now and compare; else what the last look found is told"
        ),
    ] = False,
    json: Json = False,
) -> None:
    """The accounting of each cell, discovered = published + dropped + failed, and whether the sources have moved on."""
    from mm_assets.operations.status import dataset_status
    from mm_resources.settings import Settings
    from mm_resources.storage.store import Store

    found = dataset_status(Store(Settings.from_environment().store), dataset_version, modality, look=drift)
    if json:
        print_json(found)
        return
    columns = [
        "modality",
        "discovered",
        "published",
        "dropped",
        "failed",
        "segments",
        "features",
        "failures",
        "published_at",
    ]
    rows = [
        {**cell, "published_at": (cell["published_at"] or "")[:19].replace("T", " ")}
        for cell in found["cells"]
    ]
    print_table(f"{dataset_version}: discovered = published + dropped + failed", rows, columns)
    for cell in found["cells"]:
        if cell["undecided"]:
            print(
                f"{cell['modality']}: {cell['undecided']:,} samples are undecided: the run goes on, or died; mm backfill {dataset_version}"
            )
        for gate in _last_gates(cell["gates"]):
            told = "passed" if gate["passed"] else "overridden" if gate["waived"] else "closed"
            print(f"{cell['modality']}: gate {gate['name']} {told}: {gate['description']}")
        if "blocked" in cell:
            print(f"{cell['modality']} is blocked by {cell['blocked']}")
    print(found["drift_summary"])


def _last_gates(gates: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The verdicts with numbers of the stage at which a gate is closed, or else of the last one."""
    shut = [gate["stage"] for gate in gates if not gate["passed"] and not gate["waived"]]
    return [gate for gate in gates if gate["stage"] == (shut or [gates[-1]["stage"]])[0] and gate["figures"]]
