"""`mm status`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from mm_assets.cli.options import DatasetVersion, Json, Modalities
from mm_assets.cli.output import print_json, print_table, say

_COLUMNS = [
    "modality",
    "discovered",
    "published",
    "dropped",
    "failed",
    "undecided",
    "segments",
    "features",
    "failures",
    "published_at",
]


def status(
    dataset_version: DatasetVersion,
    modalities: Modalities = None,
    drift: Annotated[
        bool,
        typer.Option(
            "--drift",
            help="list the sources now and compare; without it, show the last recorded comparison",
        ),
    ] = False,
    json: Json = False,
) -> None:
    """Show each cell's accounting, discovered = published + dropped + failed, and changes of its sources."""
    from mm_assets.operations.status import dataset_status
    from mm_resources.catalog import Catalog

    state = dataset_status(Catalog.open(), dataset_version, modalities, check=drift)
    if json:
        print_json(state)
        return
    rows = [
        {**cell, "published_at": (cell["published_at"] or "")[:19].replace("T", " ")}
        for cell in state["cells"]
    ]
    waiting = any(cell["undecided"] for cell in state["cells"])
    columns = [name for name in _COLUMNS if waiting or name != "undecided"]
    parts = "published + dropped + failed" + (" + undecided" if waiting else "")
    print_table(f"{dataset_version}: discovered = {parts}", rows, columns)
    for cell in state["cells"]:
        _print_obstacles(dataset_version, cell)
    say(state["drift_summary"])


def _print_obstacles(dataset_version: str, cell: dict[str, Any]) -> None:
    """Print the obstacles to the publish of a cell: undecided samples, gates, overrides, a blocked stage."""
    from mm_assets.cells.gates import GATES

    modality = cell["modality"]
    if cell["undecided"] and "blocked" in cell:
        say(f"{modality}: {cell['undecided']:,} samples are undecided: they wait behind the closed gate")
    elif cell["undecided"]:
        say(
            f"{modality}: {cell['undecided']:,} samples are undecided: their run is active or has died; "
            f"to resume: mm backfill {dataset_version}"
        )
    for gate in _last_gates(cell["gates"]):
        state = "passed" if gate["passed"] else "overridden" if gate["waived"] else "closed"
        say(f"{modality}: gate {gate['name']} {state}: {gate['description']}")
    for check in cell["overrides"]:
        reason = f" ({cell['override']})" if cell.get("override") else ""
        if check["name"] not in GATES:
            say(f"{modality}: {check['name']} of {check['stage']} overridden{reason}: {check['description']}")
    if "blocked" in cell:
        say(f"{modality} is blocked by {cell['blocked']}")


def _last_gates(gates: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the verdicts with figures of the first stage with a closed gate, or else of the last stage."""
    closed = [gate["stage"] for gate in gates if not gate["passed"] and not gate["waived"]]
    return [
        gate for gate in gates if gate["stage"] == (closed or [gates[-1]["stage"]])[0] and gate["figures"]
    ]
