"""`mm failures`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mm_assets.cli.error_classes import print_error_classes
from mm_assets.cli.options import ErrorClass, Json, Modalities, Stage, check_choice, check_dataset_version
from mm_assets.cli.output import one_line, print_json, print_json_array, print_table, say
from mm_embed_kernels.errors import UserError, without_classes

if TYPE_CHECKING:
    from mm_assets.curation.rule_suggestions import Proposal
    from mm_resources.catalog import Catalog
    from mm_resources.cell import Cell
    from mm_resources.tables.failure_events import FailureFilter

# Fields of an event with --json, in this order.
FIELDS = [
    "sample_id", "modality", "stage", "error_class", "message", "fingerprint", "content_hash", "source_uri",
    "attempt", "retryable", "run_id", "at",
]  # fmt: skip
# Causes in the table, the most frequent first.
_MAX_CAUSES = 50


def failures(  # noqa: PLR0913 - one parameter for each option
    dataset_version: Annotated[
        str | None,
        typer.Argument(
            metavar="DATASET@VERSION",
            callback=check_dataset_version,
            help="dataset version, or DATASET@ALIAS; required except with --classes",
        ),
    ] = None,
    modalities: Modalities = None,
    stage: Stage = "",
    error_class: ErrorClass = "",
    fingerprint: Annotated[str, typer.Option(help="only failures with this fingerprint")] = "",
    open_: Annotated[
        str,
        typer.Option("--open", metavar="SAMPLE_ID", help="write the bytes of this failed sample to a file"),
    ] = "",
    to: Annotated[
        Path | None,
        typer.Option(help="with --open: path of the file; by default named after the sample, in this folder"),
    ] = None,
    classes: Annotated[
        bool, typer.Option("--classes", help="list all error classes with meaning and remedy")
    ] = False,
    suggest: Annotated[
        bool, typer.Option(help="suggest validation rules that reject samples with recurring causes")
    ] = False,
    json: Json = False,
) -> None:
    """List failures: counts by cause with an example each, or every event with --json."""
    from mm_embed_kernels.contracts.pipeline import STAGES
    from mm_resources.catalog import Catalog
    from mm_resources.tables.failure_events import FailureFilter

    if classes:
        print_error_classes(json)
        return
    if dataset_version is None:
        raise UserError("name a DATASET@VERSION, or list all error classes with --classes")
    if stage:
        check_choice("--stage", stage, STAGES)
    if to is not None and not open_:
        raise UserError("--to names the file of --open: add --open SAMPLE_ID")
    catalog, chosen = Catalog.open(), FailureFilter(stage, error_class, fingerprint)
    cells = catalog.registry.cells(dataset_version, modalities)
    if open_:
        _open(catalog, cells, open_, to, json)
    elif suggest:
        _suggest(catalog, dataset_version, cells, chosen, json)
    elif json:
        events = catalog.failures.read_all(cells, FIELDS, chosen)
        # Stores of older versions have names of classes in front of messages.
        print_json_array(
            {**event, "message": without_classes(event["message"])}
            for batch in events
            for event in batch.to_pylist()
        )
    else:
        _print_causes(catalog, dataset_version, cells, chosen)


def _print_causes(catalog: Catalog, dataset_version: str, cells: list[Cell], chosen: FailureFilter) -> None:
    causes = catalog.failures.causes(cells, chosen)
    if not causes.num_rows:
        classes = sorted(set(catalog.failures.causes(cells)["error_class"].to_pylist()))
        say(
            f"no such failure of {dataset_version}; there are: {', '.join(classes)}"
            if classes
            else f"no failures of {dataset_version}"
        )
        return
    listed = causes.slice(0, _MAX_CAUSES).to_pylist()
    rows = [
        {
            "modality": cause["modality"],
            "stage": cause["stage"],
            "class": cause["error_class"],
            "samples": cause["samples"],
            "failures": cause["events"],
            "tries": cause["attempts"],
            "retryable": cause["retryable"],
            "example": one_line(without_classes(cause["message"]), 120),
            "source": one_line(cause["source_uri"] or "", 60),
            "cause": cause["fingerprint"],
        }
        for cause in listed
    ]
    # A sample may fail in several of its segments, and for several embedders.
    events, samples = (sum(causes[name].to_pylist()) for name in ("events", "samples"))
    several = events != samples
    title = f"{events:,} failures of {samples:,} samples" if several else f"{events:,} failures"
    columns = [name for name in rows[0] if several or name != "failures"]
    print_table(f"{title} of {dataset_version}, by cause", rows, columns)
    if causes.num_rows > _MAX_CAUSES:
        rest = f"{causes.num_rows - _MAX_CAUSES:,} less frequent causes"
        say(f"and {rest}: narrow them down with --stage, --class or --fingerprint")
    _print_next_commands(dataset_version, listed)


def _print_next_commands(dataset_version: str, causes: list[dict[str, Any]]) -> None:
    from mm_resources.tables.failure_events import may_be_redriven

    samples = [cause["sample_id"] for cause in causes if cause["sample_id"]]
    if samples:
        say(f"inspect a sample: mm failures {dataset_version} --open {samples[0]}")
    classes = [
        cause["error_class"] for cause in causes if may_be_redriven(cause["stage"], cause["error_class"])
    ]
    if classes:
        say(f"retry: mm redrive {dataset_version} --class {classes[0]}")
    say(f"rules that would catch recurring causes: mm failures {dataset_version} --suggest")


def _open(catalog: Catalog, cells: list[Cell], sample_id: str, to: Path | None, json: bool) -> None:
    from mm_assets.operations.failed_media import write_failed_medium

    opened = write_failed_medium(catalog, cells, sample_id, to)
    if json:
        print_json({**vars(opened), "path": str(opened.path)})
        return
    for event in opened.failures:
        cause = without_classes(event["message"])
        say(f"{event['stage']}: {event['error_class']}: {cause} (attempt {event['attempt']})")
    say(f"{opened.size:,} bytes from {opened.origin}")
    say(f"listed as {opened.source_uri}")
    say(opened.path)


def _suggest(
    catalog: Catalog, dataset_version: str, cells: list[Cell], chosen: FailureFilter, json: bool
) -> None:
    from mm_assets.curation.rule_suggestions import propose_rules

    by_modality = {cell.modality: propose_rules(catalog, cell, chosen) for cell in cells}
    proposals = [item for each in by_modality.values() for item in each.proposals]
    validation = {modality: each.validation for modality, each in by_modality.items() if each.validation}
    if json:
        causes = [{**vars(item), "rule": item.rule and vars(item.rule)} for item in proposals]
        print_json({"dataset_version": dataset_version, "causes": causes, "validation": validation})
        return
    if not proposals:
        say(f"no cause recurs among these failures of {dataset_version}: nothing to suggest")
        return
    title = f"{dataset_version}: recurring causes, and rules that would have caught them before download"
    print_table(title, [_proposal_row(item) for item in proposals])
    if validation:
        say("add to the spec of the next version:\n")
        say(_yaml({"validation": validation}))
    for modality, each in by_modality.items():
        if each.validation:
            say(
                f"{modality}: together they would catch {each.caught:,} of {each.failed:,} failed samples, "
                f"and wrongly reject {each.wrong:,} of {each.sound:,} others"
            )


def _proposal_row(item: Proposal) -> dict[str, Any]:
    rule = item.rule
    return {
        "modality": item.modality,
        "stage": item.stage,
        "class": item.error_class,
        "samples": item.samples,
        "rule": f"{rule.column} {rule.bound}: {rule.limit}" if rule else "no single column separates them",
        "would catch": rule.caught if rule else "",
        "wrongly reject": rule.wrong if rule else "",
    }


def _yaml(value: dict[str, Any]) -> str:
    import yaml

    return str(yaml.safe_dump(value, sort_keys=False, default_flow_style=None, width=120))
