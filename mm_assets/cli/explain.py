"""`mm explain`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

import typer

from mm_assets.cli.options import Json, check_dataset_version
from mm_assets.cli.output import one_line, print_json, print_tree, say


def explain(
    identifier: Annotated[str, typer.Argument(metavar="ID", help="feature, segment or sample id")],
    dataset_version: Annotated[
        str | None,
        typer.Option(
            metavar="DATASET@VERSION", callback=check_dataset_version, help="search only this version"
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Trace a feature back to its source: blob, decisions, segment, embedder, run."""
    from mm_resources.retrieval.feature_store import FeatureStore

    chain = FeatureStore.open().explain(identifier, dataset_version)
    if json:
        print_json(chain)
    else:
        for line in _summary(chain):
            say(line)
        print_tree(f"feature {chain['feature_id']}", chain)


def _summary(chain: dict[str, Any]) -> Iterator[str]:
    """Yield what the lineage says, in sentences."""
    source, decisions, segment = chain["source"], chain["decisions"], chain["segment"]
    embedder, run, blob = chain["embedder"], chain["run"], chain["blob"]
    label = f", label {source['label']}" if source["label"] else ""
    yield (
        f"{chain['modality']} sample {source['key']} of {chain['dataset_version']['name']}: "
        f"split {decisions['split']}{label}"
    )
    yield f"  source {source['name']}: {source['uri']}"
    size = f", {blob['size']:,} bytes" if blob.get("size") is not None else ""
    mime = chain["metadata"].get("mime")
    yield f"  content {chain['metadata'].get('content_hash', '')[:16]}{size}{f', {mime}' if mime else ''}"
    rules = decisions["rules"] or []
    flagged = ", ".join(rule["rule"] for rule in rules if not rule["passed"])
    yield f"  kept by {len(rules):,} rules{f', flagged by {flagged}' if flagged else ''}"
    text = f": {one_line(segment['text'])}" if segment["text"] else ""
    yield f"  segment {segment['span']}{text}"
    yield f"  vector of {embedder['dimension']:,} numbers by {embedder['name']} ({embedder['space']})"
    at = run["published_at"][:19].replace("T", " ")
    yield f"  published {at} UTC as pin {run['pin']} by run {run['run_id'][:8]}"
