"""`mm export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mm_assets.cli.options import DatasetVersion, Json, Verify, Where, check_choice
from mm_assets.cli.output import print_json, say


def export(  # noqa: PLR0913 - one parameter for each option
    dataset_version: DatasetVersion,
    out: Annotated[Path, typer.Option(help="folder to create")],
    modality: Annotated[
        list[str], typer.Option(help="modality to export; repeatable; several are joined by entity")
    ],
    form: Annotated[
        str, typer.Option("--format", help="parquet, webdataset, huggingface or croissant")
    ] = "parquet",
    where: Where = None,
    split: Annotated[str | None, typer.Option(help="only this split")] = None,
    column: Annotated[
        list[str] | None,
        typer.Option(help="column besides ids and vector; repeatable; by default label and split"),
    ] = None,
    embedder: Annotated[
        str | None, typer.Option(help="vectors of this embedder; by default the primary one")
    ] = None,
    verify: Verify = False,
    json: Json = False,
) -> None:
    """Write published features to a folder in a common format, with the manifest that reproduces the rows."""
    from mm_resources.retrieval.exports import FORMS
    from mm_resources.retrieval.exports import export as write
    from mm_resources.retrieval.feature_store import FeatureStore

    check_choice("--format", form, FORMS)
    columns = column or ["label", "split"]
    training_set = FeatureStore.open().training_set(
        dataset_version,
        modality=modality,
        where=where,
        split=split,
        columns=columns,
        embedder=embedder,
        verify=verify,
    )
    rows, manifest = write(training_set, form, out), training_set.manifest
    if json:
        print_json({"folder": str(out), "format": form, "rows": rows, "manifest": manifest})
    else:
        say(f"{rows:,} rows of {manifest['dataset_version']} in {out} ({form})")
