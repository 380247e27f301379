"""`mm audit`, `mm forget`."""

from __future__ import annotations

from typing import Annotated

import typer

from mm_assets.cli.output import print_json

Json = Annotated[bool, typer.Option("--json", help="machine-readable output")]


def add_to(app: typer.Typer) -> None:
    app.command()(audit)
    app.command()(forget)


def audit(
    dataset_version: Annotated[str | None, typer.Argument(metavar="[DATASET@VERSION]", help="by default all that is published")] = None,
    modality: Annotated[str | None, typer.Option(help="only this modality")] = None,
    sample: Annotated[int, typer.Option(min=1, help="rows of each table")] = 50,
    seed: Annotated[int | None, typer.Option(help="draws the same rows each time; by default others each time")] = None,
    json: Json = False,
) -> None:
    """Compute a random sample of published rows again from their blobs, and compare."""
    from dataclasses import asdict

    from mm_assets.auditing import audited
    from mm_resources.features import FeatureStore

    found = list(audited(FeatureStore.open(), dataset_version, modality, sample, seed))
    if json:
        print_json([asdict(table) for table in found])
    else:
        for table in found:
            print(table)
            if not table.same_fingerprint:
                print(f"  {table.embedder} is not installed as it made the table (mm explain names its libraries), so that more may differ")
            for wrong in table.wrong:
                far = "" if wrong.distance is None else f", {wrong.distance:.2g} away"
                print(f"  wrong: feature {wrong.feature_id} ({wrong.cause}{far}); mm explain {wrong.feature_id}")
    if any(table.wrong for table in found):
        raise typer.Exit(1)


def forget(
    identifier: Annotated[str, typer.Argument(metavar="CONTENT_HASH|SAMPLE_ID", help="what is to be forgotten, for good")],
    yes: Annotated[bool, typer.Option("--yes", help="do not ask")] = False,
    json: Json = False,
) -> None:
    """Remove a content from blobs, caches, all versions, tables and pins, and refuse it from then on. There is no way back."""
    from dataclasses import asdict

    from mm_assets.home import at_work, open_instance
    from mm_embed_kernels.errors import UserError
    from mm_resources.forgetting import forget as remove
    from mm_resources.settings import Settings
    from mm_resources.store import Store

    settings = Settings.from_environment()
    if busy := at_work(open_instance(settings)):
        raise UserError(f"{busy} is at work on the store, and could bring back what is forgotten; wait for it, then forget")
    if not yes:
        typer.confirm(
            f"Forget {identifier} in every version of every dataset of {settings.store}? There is no way back.", abort=True, err=True
        )
    receipt = remove(Store(settings.store), identifier)
    if json:
        print_json(asdict(receipt))
        return
    rows = sum(receipt.rows.values())
    print(f"forgotten: {len(receipt.samples):,} samples, {receipt.blobs:,} blobs, {rows:,} rows of {len(receipt.rows):,} tables")
    for pin in receipt.pins:
        print(f"written anew: {pin}; mm backfill {pin.split('|')[0]} publishes what is left under a new data version")
    print(f"receipt {receipt.number}; what was exported from the store before, and the sources, are yours to clean")
