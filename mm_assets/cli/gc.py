"""TODO."""

from __future__ import annotations

from typing import Annotated

import typer

from mm_assets.cli.options import Json
from mm_assets.cli.output import print_json, print_table


def gc(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="only say what would go")] = False,
    older_than_days: Annotated[
        float,
        typer.Option(
            min=0,
            help="age from which what nothing references may go; longer than any run, 0 only while none runs",
        ),
    ] = 7.0,
    json: Json = False,
) -> None:
    """Remove blobs that no version of any cell references: struck off the index now, removed by a later collection."""
    from datetime import timedelta

    from mm_resources.maintenance.garbage_collection import collect
    from mm_resources.settings import Settings
    from mm_resources.storage.store import Store

    done = collect(Store(Settings.from_environment().store), timedelta(days=older_than_days), dry_run)
    if json:
        print_json(vars(done))
        return
    print_table(
        "mm gc, dry run" if dry_run else "mm gc", [{**vars(done), "bytes": f"{done.bytes / 2**20:,.1f} MiB"}]
    )
