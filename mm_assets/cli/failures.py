"""`mm failures`, `mm redrive`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mm_assets.cli.options import DatasetVersion, ErrorClass, Json, Modality, Stage
from mm_assets.cli.output import one_line, print_json, print_json_array, print_table
from mm_assets.cli.redrive import redrive

if TYPE_CHECKING:
    from mm_resources.cell import Cell
    from mm_resources.storage.store import Store
    from mm_resources.tables.failure_events import FailureFilter


FAILURE = [
    "sample_id", "modality", "stage", "error_class", "message", "fingerprint", "content_hash", "source_uri", "attempt", "retryable",
    "run_id", "at",
]  # fmt: skip
CAUSES_SHOWN = 50


def add_to(app: typer.Typer) -> None:
    app.command()(failures)
    app.command()(redrive)


def failures(
    dataset_version: DatasetVersion,
    modality: Modality = None,
    stage: Stage = "",
    error_class: ErrorClass = "",
    fingerprint: Annotated[str, typer.Option(help="only this cause")] = "",
    open_: Annotated[
        str,
        typer.Option("--open", metavar="SAMPLE_ID", help="write the medium of this failed sample to a file"),
    ] = "",
    to: Annotated[
        Path | None,
        typer.Option(help="with --open: the file; by default named after the sample, in this folder"),
    ] = None,
    suggest: Annotated[
        bool, typer.Option(help="propose validation rules that would have caught what recurs")
    ] = False,
    json: Json = False,
) -> None:
    """The failure dataset: counts by cause with an example each, or every event with --json."""
    from mm_embed_kernels.contracts.pipeline import FAILURE_STAGES
    from mm_embed_kernels.errors import UserError
    from mm_resources.registry.registry import Registry
    from mm_resources.settings import Settings
    from mm_resources.storage.store import Store
    from mm_resources.tables.failure_events import FailureEvents, FailureFilter

    if stage not in ("", *FAILURE_STAGES):
        raise UserError(f"--stage {stage!r} is no stage; there are: {', '.join(FAILURE_STAGES)}")
    if to is not None and not open_:
        raise UserError("--to says where --open writes: name the sample")
    store = Store(Settings.from_environment().store)
    cells = Registry(store).cells(dataset_version, modality)
    if open_:
        _open(store, cells, open_, to, json)
        return
    chosen = FailureFilter(stage, error_class, fingerprint)
    if suggest:
        _suggest(store, dataset_version, cells, chosen, json)
        return
    if json:
        events = FailureEvents(store).read_all(cells, FAILURE, chosen)
        print_json_array(event for batch in events for event in batch.to_pylist())
        return
    _print_causes(store, dataset_version, cells, chosen)


def _print_causes(store: Store, dataset_version: str, cells: list[Cell], chosen: FailureFilter) -> None:
    from mm_resources.tables.failure_events import FailureEvents, may_be_redriven

    causes = FailureEvents(store).causes(cells, chosen)
    if not causes.num_rows:
        there = sorted(set(FailureEvents(store).causes(cells)["error_class"].to_pylist()))
        print(
            f"no such failure of {dataset_version}; there are: {', '.join(there)}"
            if there
            else f"no failures of {dataset_version}"
        )
        return
    shown = causes.slice(0, CAUSES_SHOWN).to_pylist()
    rows = [
        {
            "modality": cause["modality"],
            "stage": cause["stage"],
            "class": cause["error_class"],
            "count": cause["events"],
            "tries": cause["attempts"],
            "retryable": cause["retryable"],
            "example": one_line(cause["message"], 120),
            "source": one_line(cause["source_uri"] or "", 60),
            "cause": cause["fingerprint"],
        }
        for cause in shown
    ]
    print_table(f"{sum(causes['events'].to_pylist()):,} failures of {dataset_version}, by cause", rows)
    if causes.num_rows > CAUSES_SHOWN:
        print(
            f"and {causes.num_rows - CAUSES_SHOWN:,} rarer causes: narrow them down with --stage, --class or --fingerprint"
        )
    example = next((cause["sample_id"] for cause in shown if cause["sample_id"]), None)
    if example:
        print(f"look at one: mm failures {dataset_version} --open {example}")
    triable = next(
        (cause["error_class"] for cause in shown if may_be_redriven(cause["stage"], cause["error_class"])),
        None,
    )
    if triable:
        print(f"try again: mm redrive {dataset_version} --class {triable}")
    print(f"rules that would catch what recurs: mm failures {dataset_version} --suggest")


def _open(store: Store, cells: list[Cell], sample_id: str, to: Path | None, json: bool) -> None:
    from mm_assets.operations.failed_media import open_failed

    opened = open_failed(store, cells, sample_id, to)
    if json:
        print_json({**vars(opened), "path": str(opened.path)})
        return
    for event in opened.failures:
        print(f"{event['stage']}: {event['error_class']}: {event['message']} (attempt {event['attempt']})")
    print(
        f"{opened.size:,} bytes from {opened.origin}", f"listed as {opened.source_uri}", opened.path, sep="\n"
    )


def _suggest(
    store: Store, dataset_version: str, cells: list[Cell], chosen: FailureFilter, json: bool
) -> None:
    from mm_assets.curation.rule_suggestions import propose

    found = {cell.modality: propose(store, cell, chosen) for cell in cells}
    proposals = [
        vars(item) | {"rule": item.rule and vars(item.rule)}
        for each in found.values()
        for item in each.proposals
    ]
    validation = {modality: each.validation for modality, each in found.items() if each.validation}
    if json:
        print_json({"dataset_version": dataset_version, "causes": proposals, "validation": validation})
        return
    if not proposals:
        print(f"no cause recurs among these failures of {dataset_version}: nothing to suggest")
        return
    rows = [
        {
            "modality": item["modality"],
            "stage": item["stage"],
            "class": item["error_class"],
            "samples": item["samples"],
            "rule": f"{rule['column']} {rule['bound']}: {rule['limit']}"
            if (rule := item["rule"])
            else "no single column tells them apart",
            "would catch": rule["caught"] if rule else "",
            "wrongly reject": rule["wrong"] if rule else "",
        }
        for item in proposals
    ]
    print_table(
        f"{dataset_version}: recurring causes and the rules that would have caught them at the door", rows
    )
    if validation:
        print("for the spec of the next version:\n")
        print(_yaml({"validation": validation}))
    for modality, each in found.items():
        if each.validation:
            print(
                f"{modality}: together they would catch {each.caught:,} of {each.failed:,} failed samples, "
                f"and wrongly reject {each.wrong:,} of {each.sound:,} others"
            )


def _yaml(value: dict[str, Any]) -> str:
    import yaml

    return str(yaml.safe_dump(value, sort_keys=False, default_flow_style=None, width=120))
