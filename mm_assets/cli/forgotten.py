"""`mm forgotten`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from mm_assets.cli.options import Json
from mm_assets.cli.output import print_json, print_table, say


def list_forgotten(
    exports: Annotated[
        list[str],
        typer.Argument(metavar="EXPORT...", help="folders of exports, or URLs such as s3://bucket/folder"),
    ],
    json: Json = False,
) -> None:
    """List the samples of exports that were forgotten since, with the files that hold them.

    The exports stay as they are: remove them, or export again.
    """
    from mm_resources.catalog import Catalog
    from mm_resources.exports.forgotten import forgotten_samples

    catalog = Catalog.open()
    found: list[dict[str, Any]] = [
        {"export": name, **row} for name in exports for row in forgotten_samples(catalog, name)
    ]
    if json:
        print_json(found)
        return
    for name in exports:
        rows = [row for row in found if row["export"] == name]
        files = len({row["file"] for row in rows})
        say(f"{name}: {len(rows):,} rows of forgotten samples" + (f" in {files:,} files" if rows else ""))
    if found:
        print_table("forgotten samples in exports", found, ["export", "file", "sample_id", "receipt"])
