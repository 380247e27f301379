"""`mm export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mm_assets.cli.output import print_json


def add_to(app: typer.Typer) -> None:
    app.command()(export)


def export(
    dataset_version: Annotated[str, typer.Argument(metavar="DATASET@VERSION")],
    out: Annotated[Path, typer.Option(help="folder to make")],
    modality: Annotated[list[str], typer.Option(help="which modality; several are joined by entity")],
    form: Annotated[
        str, typer.Option("--format", help="parquet, webdataset, huggingface or croissant")
    ] = "parquet",
    where: Annotated[str | None, typer.Option(metavar="SQL", help="filter on the feature columns")] = None,
    split: Annotated[str | None, typer.Option(help="only this split")] = None,
    column: Annotated[
        list[str] | None, typer.Option(help="columns beside ids and vector; by default label and split")
    ] = None,
    embedder: Annotated[
        str | None, typer.Option(help="vectors of this embedder; by default the primary one")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="machine-readable output")] = False,
) -> None:
    """Write published features into a folder that other tools read, with the manifest that brings the same rows back."""
    from mm_resources.features.exports import export as write
    from mm_resources.features.feature_tables import FeatureStore

    columns = column or ["label", "split"]
    chosen = FeatureStore.open().training_set(
        dataset_version, modality=modality, where=where, split=split, columns=columns, embedder=embedder
    )
    rows = write(chosen, form, out)
    if json:
        print_json({"folder": str(out), "format": form, "rows": rows, "manifest": chosen.manifest})
    else:
        print(f"{rows:,} rows of {chosen.manifest['dataset_version']} in {out} ({form})")
