"""`mm trace`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from mm_assets.cli.options import Json
from mm_assets.cli.output import print_json, print_table, say


def trace(
    of: Annotated[
        str,
        typer.Argument(
            metavar="DIGEST|EXPORT|FILE",
            help="digest of a recorded training set, or its beginning; an export; or the file of a manifest",
        ),
    ],
    samples: Annotated[int, typer.Option(min=0, help="rows to show")] = 10,
    json: Json = False,
) -> None:
    """Trace what a model was trained on back to pins and samples, by the digest of its training set."""
    from mm_resources.exports.folder import read_manifest
    from mm_resources.retrieval.feature_store import FeatureStore

    found = FeatureStore.open().trace(read_manifest(of) if _is_place(of) else of, samples)
    if json:
        print_json(found)
        return
    say(f"training set {found['digest']}: {found['rows']:,} rows")
    for each in found["sets"]:
        for line in _describe(each):
            say(line)
    if found["samples"]:
        first = found["samples"][0]
        names = [
            name for name in first if name.rpartition("__")[2] in ("feature_id", "key", "label", "split")
        ]
        print_table(f"the first {len(found['samples']):,} rows", found["samples"], names)
        say("more about one: mm explain FEATURE_ID")


def _is_place(text: str) -> bool:
    return text.endswith(".json") or "/" in text or Path(text).is_dir()


def _describe(each: dict[str, Any]) -> Iterator[str]:
    """Yield what a set was made of, in sentences."""
    weights = each["weights"]
    mixed = f", mixed by {':'.join(f'{weight:g}' for weight in weights)}" if weights else ""
    at = f", recorded {each['recorded_at'][:19].replace('T', ' ')} UTC" if each["recorded_at"] else ""
    yield f"{each['dataset_version']}{mixed}{at}"
    for where in dict.fromkeys(map(str, each["where"])):
        yield f"  where {where}"
    if each["is_redacted"]:
        yield "  rows of it were forgotten since, and its filter with them"
    for table in each["tables"]:
        made = (
            f"{table['embedder']}, weights {table['weights_hash'][:12]}" if table["embedder"] else "unknown"
        )
        at = (
            f"published {table['published_at'][:19].replace('T', ' ')} UTC"
            if table["published_at"]
            else "gone"
        )
        run = f" by run {table['run_id'][:8]}" if table["run_id"] else ""
        cell = f"{table['dataset_version']} {table['modality']}"
        yield f"  {cell}: pin {table['pin']}, {at}{run}; vectors of {made}"
