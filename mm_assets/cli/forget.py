"""`mm forget`."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import Annotated

import typer

from mm_assets.cli.options import Json
from mm_assets.cli.output import print_json, say
from mm_embed_kernels.errors import SampleError, UserError


def forget(
    identifier: Annotated[
        str, typer.Argument(metavar="CONTENT_HASH|SAMPLE_ID", help="content hash or sample id to erase")
    ],
    yes: Annotated[bool, typer.Option("--yes", help="skip the confirmation")] = False,
    json: Json = False,
) -> None:
    """Permanently erase a content from blobs, caches, tables and pins, and reject it in future ingests."""
    from mm_assets.operations.dagster_home import active_runs, open_instance
    from mm_resources.catalog import Catalog
    from mm_resources.maintenance.forgetting import forget as remove
    from mm_resources.maintenance.forgetting_preview import describe_scope
    from mm_resources.settings import Settings
    from mm_resources.storage.lance_errors import Fenced

    settings = Settings.from_environment()
    if busy := active_runs(open_instance(settings)):
        raise UserError(
            f"{busy} is processing a cell and could restore the content; wait for it to end, then repeat"
        )
    if not yes:
        for line in describe_scope(Catalog.open(), identifier):
            say(line, file=sys.stderr)
        question = f"Forget {identifier} in every version of every dataset of {settings.store}? Irreversible."
        typer.confirm(question, abort=True, err=True)
    try:
        receipt = remove(Catalog.open(), identifier)
    except (Fenced, SampleError) as error:
        # Another process writes to the store, or the store fails half-way.
        raise UserError(f"forgetting {identifier} is not complete: {error}; repeat the command") from None
    if json:
        print_json(asdict(receipt))
        return
    rows = f"{sum(receipt.rows.values()):,} rows of {len(receipt.rows):,} tables"
    say(f"forgotten: {len(receipt.samples):,} samples, {receipt.blobs:,} blobs, {rows}")
    for pin in receipt.pins:
        dataset_version = pin.split("|")[0]
        say(f"rewritten: {pin}; mm backfill {dataset_version} publishes the rest under a new data version")
    say(f"receipt {receipt.number}; clean the sources, and earlier exports from the store, yourself")
