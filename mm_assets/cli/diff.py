"""`mm diff`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mm_assets.cli.options import Json, Modalities, check_dataset_version
from mm_assets.cli.output import print_json, say

if TYPE_CHECKING:
    from mm_resources.monitoring.version_diff import CellDiff


def diff(
    before: Annotated[
        str,
        typer.Argument(metavar="DATASET@VERSION", callback=check_dataset_version, help="the earlier version"),
    ],
    after: Annotated[
        str,
        typer.Argument(metavar="DATASET@VERSION", callback=check_dataset_version, help="the later version"),
    ],
    modalities: Modalities = None,
    json: Json = False,
) -> None:
    """Compare two published versions: samples, decisions, splits, labels, vectors."""
    from mm_resources.catalog import Catalog
    from mm_resources.monitoring.version_diff import common_modalities
    from mm_resources.monitoring.version_diff import diff as compare

    catalog = Catalog.open()
    names = modalities or common_modalities(catalog, before, after)
    cells = [
        compare(catalog, *(catalog.registry.cells(version, name)[0] for version in (before, after)))
        for name in names
    ]
    if json:
        print_json({"from": before, "to": after, "cells": [asdict(cell) for cell in cells]})
        return
    say(f"{before} -> {after}")
    for cell in cells:
        say(*_lines(cell), sep="\n")


def _lines(cell: CellDiff) -> Iterator[str]:
    kinds = {name: getattr(cell, name) for name in ("added", "removed", "altered", "moved")}
    yield f"{cell.modality}: {_counts(kinds) or 'no sample changed'}; {cell.same:,} the same"
    for kind, keys in cell.examples.items():
        yield f"  {kind}: {_examples(keys, kinds[kind])}"
    for row in cell.decisions:
        examples = _examples(row["examples"], row["samples"])
        yield f"  {row['samples']:,} {row['from']} -> {row['to']}: {examples}"
    if other := _counts({"in another split": cell.resplit, "with another label": cell.relabelled}):
        yield f"  {other}"
    if drift := cell.vectors:
        shift = (
            "in another space"
            if drift.centroid_cosine is None
            else f"cosine of the mean vectors {drift.centroid_cosine:.4f}"
        )
        yield f"  features: {drift.before:,} -> {drift.after:,}, {drift.shared:,} in both; {shift}"


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in counts.items() if count)


def _examples(keys: list[Any], count: int) -> str:
    return ", ".join(map(str, keys)) + (" ..." if count > len(keys) else "")
