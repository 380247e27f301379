"""`mm diff`, `mm promote`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from mm_assets.cli.output import print_json
from mm_assets.cli.promote import promote

if TYPE_CHECKING:
    from mm_resources.monitoring.version_diff import CellDiff


def add_to(app: typer.Typer) -> None:
    app.command()(diff)
    app.command()(promote)


def diff(
    before: Annotated[str, typer.Argument(metavar="DATASET@VERSION", help="the earlier version")],
    after: Annotated[str, typer.Argument(metavar="DATASET@VERSION", help="the later one")],
    modality: Annotated[str | None, typer.Option(help="only this modality")] = None,
    json: Annotated[bool, typer.Option("--json", help="machine-readable output")] = False,
) -> None:
    """What moved between two published versions: samples, decisions, splits, labels, vectors."""
    from dataclasses import asdict

    from mm_resources.features.feature_tables import FeatureStore
    from mm_resources.monitoring.version_diff import common_modalities
    from mm_resources.monitoring.version_diff import diff as compare

    features = FeatureStore.open()
    names = [modality] if modality else common_modalities(features, before, after)
    cells = [
        compare(features, *(features.registry.cells(version, name)[0] for version in (before, after)))
        for name in names
    ]
    if json:
        print_json({"from": before, "to": after, "cells": [asdict(cell) for cell in cells]})
        return
    print(f"{before} -> {after}")
    for cell in cells:
        for line in _told(cell):
            print(line)


def _told(cell: CellDiff) -> list[str]:
    kinds = {name: getattr(cell, name) for name in ("added", "removed", "altered", "moved")}
    lines = [f"{cell.modality}: {_listed(kinds) or 'no sample changed'}; {cell.same:,} the same"]
    lines += [f"  {kind}: {_some(keys, kinds[kind])}" for kind, keys in cell.examples.items()]
    lines += [
        f"  {row['samples']:,} {row['from']} -> {row['to']}: {_some(row['examples'], row['samples'])}"
        for row in cell.decisions
    ]
    if other := _listed({"in another split": cell.resplit, "with another label": cell.relabelled}):
        lines.append(f"  {other}")
    if drift := cell.vectors:
        shift = (
            "in another space"
            if drift.centroid_cosine is None
            else f"cosine of the mean vectors {drift.centroid_cosine:.4f}"
        )
        lines.append(f"  features: {drift.before:,} -> {drift.after:,}, {drift.shared:,} in both; {shift}")
    return lines


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in counts.items() if count)


def _some(keys: list[Any], count: int) -> str:
    return ", ".join(map(str, keys)) + (" ..." if count > len(keys) else "")
