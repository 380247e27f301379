"""`mm upkeep`."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

import typer

from mm_assets.cli.options import Json
from mm_assets.cli.output import print_json, print_table


def upkeep(
    older_than_days: Annotated[
        float,
        typer.Option(
            min=0, help="age from which superseded versions are removed; 0 only while nothing uses the store"
        ),
    ] = 7.0,
    json: Json = False,
) -> None:
    """Compact small files and remove superseded versions; published ones and those of training sets stay."""
    from mm_resources.catalog import Catalog
    from mm_resources.maintenance.upkeep import upkeep as run_upkeep

    done = run_upkeep(Catalog.open(), timedelta(days=older_than_days))
    if json:
        print_json([vars(part) for part in done])
        return
    print_table("mm upkeep", [{**vars(part), "bytes": f"{part.bytes / 2**20:,.1f} MiB"} for part in done])
