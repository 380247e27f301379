"""`mm search`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from mm_assets.cli.modality_choice import choose_modalities
from mm_assets.cli.options import Json, Verify, Where, check_choice, check_dataset_versions
from mm_assets.cli.output import one_line, print_json, print_table, say

# Fields of a hit with --json, in this order.
FIELDS = [
    "feature_id", "sample_id", "segment_id", "entity_id", "content_hash", "source_uri", "dataset_version",
    "modality", "label", "split", "score", "span",
]  # fmt: skip


def search(  # noqa: PLR0913 - one parameter for each option
    query: Annotated[str, typer.Argument(help="text, a media path, or id:FEATURE|SEGMENT|SAMPLE")],
    modality: Annotated[
        list[str] | None,
        typer.Option(
            help="modality to search; repeatable for modalities that share a vector space; required where "
            "several are published"
        ),
    ] = None,
    dataset_version: Annotated[
        list[str] | None,
        typer.Option(
            metavar="DATASET@VERSION",
            callback=check_dataset_versions,
            help="published version to search; repeatable; by default all",
        ),
    ] = None,
    k: Annotated[int, typer.Option("-k", min=1, help="number of hits")] = 10,
    where: Where = None,
    embedder: Annotated[
        str | None, typer.Option(help="search this embedder's tables; by default the primary one's")
    ] = None,
    mode: Annotated[
        str, typer.Option(help="vector, text (words of texts and transcripts), or hybrid")
    ] = "vector",
    group_by: Annotated[
        str | None, typer.Option(help="sample or entity: the best hit of each in a version")
    ] = None,
    find: Annotated[
        str, typer.Option(help="neighbours, duplicates, or hard_negatives (near, with another label)")
    ] = "neighbours",
    label: Annotated[
        str | None,
        typer.Option(help="label of the query for hard_negatives; default: label of the query's sample"),
    ] = None,
    verify: Verify = False,
    json: Json = False,
) -> None:
    """List the published features nearest to a query, best first."""
    from mm_resources.retrieval.feature_store import FeatureStore
    from mm_resources.retrieval.search import FINDS, GROUPS, MODES

    check_choice("--mode", mode, MODES)
    check_choice("--find", find, FINDS)
    if group_by is not None:
        check_choice("--group-by", group_by, GROUPS)
    store = FeatureStore.open()
    names = choose_modalities(store.catalog, modality, dataset_version)
    hits = store.search(
        query,
        dataset_version=dataset_version or None,
        modality=names,
        embedder=embedder,
        k=k,
        where=where,
        mode=mode,
        group_by=group_by,
        find=find,
        label=label,
        verify=verify,
    )
    if json:
        print_json(hits.select(FIELDS).to_pylist())
        return
    rows = [_row(hit, 4 if mode == "hybrid" else 3) for hit in hits.to_pylist()]
    if not rows:
        say("no hits")
        return
    versions = ", ".join(dataset_version or ["all versions"])
    shown = _useful_columns(rows, len(dataset_version or []) == 1)
    print_table(f"{versions} {', '.join(names)}: {query}", rows, shown)
    say("origin of a hit: mm explain FEATURE_ID")


def _row(hit: dict[str, Any], digits: int) -> dict[str, Any]:
    source = hit["source_uri"]
    return {
        "score": round(hit["score"], digits),
        "version": hit["dataset_version"],
        "modality": hit["modality"],
        "label": hit["label"],
        "split": hit["split"],
        "source": source if source.endswith(hit["key"]) else f"{source}#{hit['key']}",
        "place": hit["span"] if hit["span"] != "full" else "",
        "text": one_line(hit["text"] or ""),
        "feature_id": hit["feature_id"],
    }


def _useful_columns(rows: list[dict[str, Any]], one_version: bool) -> list[str]:
    """Return the columns of hits without those that are empty, or the same in every row.

    Labels and splits are those of a version: it is left out only where `one_version` is searched.
    """
    empty = {name for name in ("text", "label", "place") if not any(row[name] for row in rows)}
    constant = {"version"} if one_version else set()
    constant |= {"modality"} if len({row["modality"] for row in rows}) == 1 else set()
    return [name for name in rows[0] if name not in empty | constant]
