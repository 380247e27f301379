"""`mm gc`."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

import typer

from mm_assets.cli.options import Json
from mm_assets.cli.output import print_json, print_table


def gc(
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="count unreferenced blobs; remove nothing")
    ] = False,
    older_than_days: Annotated[
        float,
        typer.Option(
            min=0,
            help="age of unreferenced blobs to remove; longer than any run; 0 only while no run is active",
        ),
    ] = 7.0,
    json: Json = False,
) -> None:
    """Remove blobs that no version of a cell references: from the index now, from disk later."""
    from mm_resources.catalog import Catalog
    from mm_resources.maintenance.garbage_collection import collect

    done = collect(Catalog.open(), timedelta(days=older_than_days), dry_run)
    if json:
        print_json(vars(done))
        return
    title = "mm gc, dry run" if dry_run else "mm gc"
    print_table(title, [{**vars(done), "bytes": f"{done.bytes / 2**20:,.1f} MiB"}])
