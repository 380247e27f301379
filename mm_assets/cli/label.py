"""`mm label`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from mm_assets.cli.options import Json, Modalities, check_dataset_version
from mm_assets.cli.output import print_json, print_table, say


def label(
    dataset_version: Annotated[
        str,
        typer.Option(
            metavar="DATASET@VERSION",
            callback=check_dataset_version,
            help="version whose samples are reviewed and scored",
        ),
    ],
    file: Annotated[
        Path | None,
        typer.Argument(
            help="CSV, TSV or JSONL with mark (keep or drop) or label, and sample_id, key or source_uri; "
            "without it, only score the recorded reviews"
        ),
    ] = None,
    modalities: Modalities = None,
    labels: Annotated[
        Path | None,
        typer.Option(help="write the labels that people gave to this CSV: key, sample_id, modality, label"),
    ] = None,
    json: Json = False,
) -> None:
    """Record reviews (keep, drop, labels), and score rules and failures by them: precision and recall."""
    from mm_assets.curation.review_files import RecordedReviews, record_reviews, write_labels
    from mm_resources.catalog import Catalog
    from mm_resources.monitoring.review_scores import score_reviews

    catalog = Catalog.open()
    cells = catalog.registry.cells(dataset_version, modalities)
    done = RecordedReviews() if file is None else record_reviews(catalog, cells, file)
    scores = {cell.modality: score_reviews(catalog, cell) for cell in cells}
    if labels is not None:
        written = write_labels(catalog, cells, labels)
        if not json:
            say(f"{written:,} labels written to {labels}")
    if json:
        scored = [
            {"modality": name, "scores": [asdict(score) for score in each]} for name, each in scores.items()
        ]
        print_json({"dataset_version": dataset_version, **asdict(done), "cells": scored})
        return
    if file is not None:
        say(f"{done.recorded:,} reviews recorded")
    if done.unknown:
        lines = "; ".join(done.unknown_lines)
        say(f"lines that name no sample of {dataset_version}: {done.unknown:,} ({lines})")
    for name, each in scores.items():
        if each:
            print_table(
                f"{name}: {dataset_version} against {each[0].marked:,} reviewed samples",
                [asdict(score) for score in each],
            )
    if not any(scores.values()):
        say(f"no sample of {dataset_version} is reviewed")
