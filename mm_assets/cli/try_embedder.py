"""`mm try`."""

from __future__ import annotations

from typing import Annotated

import typer

from mm_assets.cli.modality_choice import choose_modalities
from mm_assets.cli.options import Json, check_dataset_version
from mm_assets.cli.output import one_line, print_json, print_table, say


def try_embedder(
    embedder: Annotated[str, typer.Argument(help="the embedder to try")],
    dataset_version: Annotated[
        str,
        typer.Option(
            metavar="DATASET@VERSION",
            callback=check_dataset_version,
            help="version whose published segments are sampled",
        ),
    ],
    modality: Annotated[
        str | None, typer.Option(help="modality of the segments; required where several are published")
    ] = None,
    sample: Annotated[int, typer.Option(min=2, help="number of segments")] = 500,
    json: Json = False,
) -> None:
    """Run an embedder on a sample: rate, time for the cell, neighbours beside the current ones."""
    from mm_assets.operations.embedder_trial import try_embedder as run_trial
    from mm_resources.catalog import Catalog

    catalog = Catalog.open()
    (modality,) = choose_modalities(catalog, [modality] if modality else None, [dataset_version])
    trial = run_trial(catalog, catalog.registry.cells(dataset_version, modality)[0], embedder, sample)
    if json:
        neighbours = [vars(item) for item in trial.neighbours]
        print_json({**vars(trial), "cell_seconds": trial.cell_seconds, "neighbours": neighbours})
        return
    # The space keeps the two columns apart where the embedder is tried against itself.
    rows = [
        {
            "of": one_line(item.of, 40),
            trial.current: "\n".join(item.current),
            trial.embedder + " ": "\n".join(item.tried),
        }
        for item in trial.neighbours
    ]
    print_table(f"nearest neighbours among {trial.sample:,} segments of {dataset_version} {modality}", rows)
    say(f"{trial.overlap:.0%} of the neighbours are the same; {trial.failed:,} segments failed")
    if trial.seconds_per_segment is None or trial.cell_seconds is None:
        say(f"no rate: all {trial.sample:,} vectors were in the cache")
    else:
        say(
            f"{1 / trial.seconds_per_segment:,.1f} segments/s in one process: "
            f"{trial.cell_seconds:,.0f} s for the {trial.cell_segments:,} segments of the cell"
        )
