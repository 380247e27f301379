"""TODO."""

from __future__ import annotations

from typing import Annotated

import typer

from mm_assets.cli.options import Json
from mm_assets.cli.output import one_line, print_json, print_table


def try_(
    embedder: Annotated[str, typer.Argument(help="the embedder to try")],
    dataset_version: Annotated[
        str, typer.Option(metavar="DATASET@VERSION", help="whose published segments it is tried on")
    ],
    modality: Annotated[str, typer.Option(help="which modality")],
    sample: Annotated[int, typer.Option(min=2, help="number of segments")] = 500,
    json: Json = False,
) -> None:
    """Run an embedder on a sample: its rate, its cost for the whole cell, and its neighbours beside the current ones."""
    from mm_assets.operations.embedder_trial import try_embedder
    from mm_resources.features.feature_tables import FeatureStore

    features = FeatureStore.open()
    trial = try_embedder(features, features.registry.cells(dataset_version, modality)[0], embedder, sample)
    if json:
        print_json(
            {
                **vars(trial),
                "cell_seconds": trial.cell_seconds,
                "neighbours": [vars(item) for item in trial.neighbours],
            }
        )
        return
    rows = [
        {
            "of": one_line(item.of, 40),
            trial.current: "\n".join(item.current),
            trial.embedder + " ": "\n".join(item.tried),
        }
        for item in trial.neighbours
    ]
    print_table(f"nearest neighbours among {trial.sample:,} segments of {dataset_version} {modality}", rows)
    print(f"{trial.overlap:.0%} of the neighbours are the same; {trial.failed:,} segments failed")
    if trial.seconds_per_segment is None or trial.cell_seconds is None:
        print(f"all {trial.sample:,} vectors were in the cache, so there is no rate")
    else:
        rate = f"{1 / trial.seconds_per_segment:,.1f} segments/s"
        print(
            f"{rate} in one process: {trial.cell_seconds:,.0f} s for the {trial.cell_segments:,} segments of the cell"
        )
