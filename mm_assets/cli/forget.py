"""TODO."""

from __future__ import annotations

from typing import Annotated

import typer

from mm_assets.cli.options import Json
from mm_assets.cli.output import print_json


def forget(
    identifier: Annotated[
        str, typer.Argument(metavar="CONTENT_HASH|SAMPLE_ID", help="what is to be forgotten, for good")
    ],
    yes: Annotated[bool, typer.Option("--yes", help="do not ask")] = False,
    json: Json = False,
) -> None:
    """Remove a content from blobs, caches, all versions, tables and pins, and refuse it from then on. There is no way back."""
    from dataclasses import asdict

    from mm_assets.operations.dagster_home import at_work, open_instance
    from mm_embed_kernels.errors import UserError
    from mm_resources.maintenance.forgetting import forget as remove
    from mm_resources.settings import Settings
    from mm_resources.storage.store import Store

    settings = Settings.from_environment()
    if busy := at_work(open_instance(settings)):
        raise UserError(
            f"{busy} is at work on the store, and could bring back what is forgotten; wait for it, then forget"
        )
    if not yes:
        typer.confirm(
            f"Forget {identifier} in every version of every dataset of {settings.store}? There is no way back.",
            abort=True,
            err=True,
        )
    receipt = remove(Store(settings.store), identifier)
    if json:
        print_json(asdict(receipt))
        return
    rows = sum(receipt.rows.values())
    print(
        f"forgotten: {len(receipt.samples):,} samples, {receipt.blobs:,} blobs, {rows:,} rows of {len(receipt.rows):,} tables"
    )
    for pin in receipt.pins:
        print(
            f"written anew: {pin}; mm backfill {pin.split('|')[0]} publishes what is left under a new data version"
        )
    print(
        f"receipt {receipt.number}; what was exported from the store before, and the sources, are yours to clean"
    )
