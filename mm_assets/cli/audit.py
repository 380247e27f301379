"""`mm audit`, `mm forget`."""

from __future__ import annotations

from typing import Annotated

import typer

from mm_assets.cli.forget import forget
from mm_assets.cli.options import Json
from mm_assets.cli.output import print_json


def add_to(app: typer.Typer) -> None:
    app.command()(audit)
    app.command()(forget)


def audit(
    dataset_version: Annotated[
        str | None, typer.Argument(metavar="[DATASET@VERSION]", help="by default all that is published")
    ] = None,
    modality: Annotated[str | None, typer.Option(help="only this modality")] = None,
    sample: Annotated[int, typer.Option(min=1, help="rows of each table")] = 50,
    seed: Annotated[
        int | None, typer.Option(help="draws the same rows each time; by default others each time")
    ] = None,
    json: Json = False,
) -> None:
    """Compute a random sample of published rows again from their blobs, and compare."""
    from dataclasses import asdict

    from mm_assets.operations.audits import audited
    from mm_resources.features.feature_tables import FeatureStore

    found = list(audited(FeatureStore.open(), dataset_version, modality, sample, seed))
    if json:
        print_json([asdict(table) for table in found])
    else:
        for table in found:
            print(table)
            if not table.same_fingerprint:
                print(
                    f"  {table.embedder} is not installed as it made the table (mm explain names its libraries), so that more may differ"
                )
            for wrong in table.wrong:
                far = "" if wrong.distance is None else f", {wrong.distance:.2g} away"
                print(
                    f"  wrong: feature {wrong.feature_id} ({wrong.cause}{far}); mm explain {wrong.feature_id}"
                )
    if any(table.wrong for table in found):
        raise typer.Exit(1)
