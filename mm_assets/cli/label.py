"""`mm label`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from mm_assets.cli.output import print_json, print_table


def add_to(app: typer.Typer) -> None:
    app.command()(label)


def label(
    dataset_version: Annotated[
        str, typer.Option(metavar="DATASET@VERSION", help="the version whose samples are marked, and scored")
    ],
    file: Annotated[
        Path | None,
        typer.Argument(
            help="CSV, TSV or JSONL: mark (keep or drop), and sample_id, key or source_uri; without it, only scores"
        ),
    ] = None,
    modality: Annotated[str | None, typer.Option(help="only this modality")] = None,
    json: Annotated[bool, typer.Option("--json", help="machine-readable output")] = False,
) -> None:
    """Record what people would keep and drop, and score rules and failures against all such marks: precision and recall."""
    from mm_assets.curation.review_files import Labelled
    from mm_assets.curation.review_files import label as record
    from mm_resources.monitoring.reviews import Marks
    from mm_resources.registry.registry import Registry
    from mm_resources.settings import Settings
    from mm_resources.storage.store import Store

    store = Store(Settings.from_environment().store)
    cells = Registry(store).cells(dataset_version, modality)
    done = Labelled() if file is None else record(store, cells, file)
    scores = {cell.modality: Marks(store).scores(cell) for cell in cells}
    if json:
        found = [
            {"modality": name, "scores": [asdict(score) for score in each]} for name, each in scores.items()
        ]
        print_json({"dataset_version": dataset_version, **asdict(done), "cells": found})
        return
    if file is not None:
        print(f"{done.recorded:,} marks recorded")
    if done.unknown:
        print(
            f"lines that name no sample of {dataset_version}: {done.unknown:,} ({'; '.join(done.unknown_lines)})"
        )
    for name, each in scores.items():
        if each:
            print_table(
                f"{name}: {dataset_version} against {each[0].marked:,} marked samples",
                [asdict(score) for score in each],
            )
    if not any(scores.values()):
        print(f"no sample of {dataset_version} is marked")
