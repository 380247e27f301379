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
            min=0,
            help="age of superseded versions to remove; 0 only while no run or reader uses the store",
        ),
    ] = 7.0,
    json: Json = False,
) -> None:
    """Compact small files and remove superseded versions; versions of pins and training sets are kept."""
    from mm_resources.catalog import Catalog
    from mm_resources.maintenance.upkeep import upkeep as run_upkeep

    done = run_upkeep(Catalog.open(), timedelta(days=older_than_days))
    if json:
        print_json([vars(part) for part in done])
        return
    print_table("mm upkeep", [{**vars(part), "bytes": f"{part.bytes / 2**20:,.1f} MiB"} for part in done])
