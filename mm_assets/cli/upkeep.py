"""TODO."""

from __future__ import annotations

from typing import Annotated

import typer

from mm_assets.cli.options import Json
from mm_assets.cli.output import print_json, print_table


def upkeep(
    older_than_days: Annotated[
        float,
        typer.Option(
            min=0, help="age from which superseded versions go; 0 only while nothing runs on the store"
        ),
    ] = 7.0,
    json: Json = False,
) -> None:
    """Join small files and remove what is superseded; whatever is published, or pinned by a training set, stays."""
    from datetime import timedelta

    from mm_resources.maintenance.upkeep import upkeep as tidy
    from mm_resources.settings import Settings
    from mm_resources.storage.store import Store

    done = tidy(Store(Settings.from_environment().store), timedelta(days=older_than_days))
    if json:
        print_json([vars(part) for part in done])
        return
    print_table("mm upkeep", [{**vars(part), "bytes": f"{part.bytes / 2**20:,.1f} MiB"} for part in done])
