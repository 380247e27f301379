"""`mm explain`."""

from __future__ import annotations

from typing import Annotated

import typer

from mm_assets.cli.options import Json, check_dataset_version
from mm_assets.cli.output import print_json, print_tree


def explain(
    identifier: Annotated[str, typer.Argument(metavar="ID", help="feature, segment or sample id")],
    dataset_version: Annotated[
        str | None,
        typer.Option(
            metavar="DATASET@VERSION", callback=check_dataset_version, help="search only this version"
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Trace a feature back to its source: blob, decisions, segment, embedder, run."""
    from mm_resources.retrieval.feature_store import FeatureStore

    chain = FeatureStore.open().explain(identifier, dataset_version)
    if json:
        print_json(chain)
    else:
        print_tree(f"[bold]feature {chain['feature_id']}[/bold]", chain)
