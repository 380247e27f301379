"""`mm gc`."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from mm_assets.cli.options import Json
from mm_assets.cli.output import print_json, say

if TYPE_CHECKING:
    from mm_resources.maintenance.garbage_collection import CollectionResult


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
    for line in _lines(done, dry_run, older_than_days):
        say(line)


def _lines(done: CollectionResult, dry_run: bool, days: float) -> Iterator[str]:
    """Yield what a collection did, or would do, in sentences."""
    from mm_resources.costs.figures import format_bytes

    will = "would " if dry_run else ""
    yield f"{done.referenced:,} blobs are referenced, and stay"
    if done.condemned:
        yield (
            f"{done.condemned:,} blobs that nothing references {will}leave the index; their "
            f"bytes are removed by a collection {days:g} days later"
        )
    if done.restored:
        yield f"{done.restored:,} blobs are referenced again, and {will}return to the index"
    if done.removed or done.objects:
        removed = "would be removed" if dry_run else "are removed"
        yield (
            f"{done.removed:,} blobs that have been out of the index for {days:g} days, in {done.objects:,} "
            f"objects of {format_bytes(done.bytes)}, {removed}"
        )
    if done.rewritten:
        yield f"{done.rewritten:,} packs that are mostly garbage {'would be' if dry_run else 'are'} rewritten"
    if not (done.condemned or done.restored or done.removed or done.objects or done.rewritten):
        yield f"nothing to remove: no blob without a reference is older than {days:g} days"
    if dry_run:
        yield "dry run: nothing was changed"
