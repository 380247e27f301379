"""TODO."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from mm_assets.cli.output import print_json

if TYPE_CHECKING:
    pass


def promote(
    dataset_version: Annotated[
        str, typer.Argument(metavar="DATASET@VERSION", help="with --back: DATASET@ALIAS")
    ],
    to: Annotated[
        str, typer.Option(help="the alias: production, staging, champion or candidate")
    ] = "production",
    evaluate: Annotated[
        str, typer.Option(metavar="MODULE:FUNCTION", help="a test of your own that must pass too")
    ] = "",
    override: Annotated[
        str, typer.Option(metavar="REASON", help="promote in spite of a closed gate; recorded")
    ] = "",
    back: Annotated[
        bool, typer.Option("--back", help="take the alias back to where it stood before")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="machine-readable output")] = False,
) -> None:
    """Move an alias to a version that passes the promotion gate; readers ask for DATASET@production."""
    import os
    import sys
    from dataclasses import asdict

    from mm_assets.operations.promotion import promote as move
    from mm_assets.operations.promotion import take_back
    from mm_resources.features.feature_tables import FeatureStore

    sys.path.insert(0, os.getcwd())  # where the user's own test lies
    features = FeatureStore.open()
    if back:
        dataset, _, alias = dataset_version.partition("@")
        moved = take_back(features, dataset, alias or to)
    else:
        moved = move(features, dataset_version, to, evaluate, override)
    if json:
        print_json(asdict(moved))
        return
    print(
        f"{moved.dataset}@{moved.alias} is {moved.dataset_version}{f' ({moved.reason})' if moved.reason else ''}"
    )
    for check in moved.checks if not back else []:
        print(f"  {'passed' if check['passed'] else 'overridden'}: {check['description']}")
