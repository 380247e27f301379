"""`mm status`, `mm search`, `mm explain`, `mm try`."""

from __future__ import annotations

from typing import Annotated

import typer

from mm_assets.cli.options import Json
from mm_assets.cli.output import print_json, print_tree
from mm_assets.cli.search import search
from mm_assets.cli.status import status
from mm_assets.cli.try_embedder import try_


def add_to(app: typer.Typer) -> None:
    for command in (status, search, explain):
        app.command()(command)
    app.command("try")(try_)


def explain(
    identifier: Annotated[str, typer.Argument(metavar="ID", help="feature, segment or sample id")],
    dataset_version: Annotated[
        str | None, typer.Option(metavar="DATASET@VERSION", help="look only there")
    ] = None,
    json: Json = False,
) -> None:
    """Where a feature came from: source, blob, decisions, segment, embedder, run."""
    from mm_resources.features.feature_tables import FeatureStore

    found = FeatureStore.open().explain(identifier, dataset_version)
    if json:
        print_json(found)
    else:
        print_tree(f"[bold]feature {found['feature_id']}[/bold]", found)
