"""TODO."""

from __future__ import annotations

from typing import Annotated

import typer

from mm_assets.cli.options import Json
from mm_assets.cli.output import one_line, print_json, print_table

HIT = (
    "feature_id",
    "sample_id",
    "segment_id",
    "entity_id",
    "content_hash",
    "source_uri",
    "dataset_version",
    "modality",
    "label",
    "split",
    "score",
    "span",
)


def search(
    query: Annotated[str, typer.Argument(help="text, a media path, or id:FEATURE|SEGMENT|SAMPLE")],
    modality: Annotated[
        list[str], typer.Option(help="which modality to search; repeat it for several that share a space")
    ],
    dataset_version: Annotated[
        list[str] | None,
        typer.Option(
            metavar="DATASET@VERSION", help="which published version to search; repeat it; by default all"
        ),
    ] = None,
    k: Annotated[int, typer.Option("-k", min=1, help="number of answers")] = 10,
    where: Annotated[
        str | None,
        typer.Option(metavar="SQL", help="filter on the feature columns, e.g. \"split = 'train'\""),
    ] = None,
    embedder: Annotated[
        str | None, typer.Option(help="table of this embedder; by default the primary one")
    ] = None,
    mode: Annotated[
        str, typer.Option(help="vector, text (words of texts and transcripts), or hybrid")
    ] = "vector",
    group_by: Annotated[str | None, typer.Option(help="sample or entity: the best hit of each")] = None,
    find: Annotated[
        str, typer.Option(help="neighbours, duplicates, or hard_negatives (near, of another label)")
    ] = "neighbours",
    label: Annotated[
        str | None, typer.Option(help="of the query, for hard negatives; by default that of its sample")
    ] = None,
    json: Json = False,
) -> None:
    """The nearest features of what is published, best first."""
    from mm_resources.features.feature_tables import FeatureStore

    found = (
        FeatureStore.open()
        .search(
            query, dataset_version=dataset_version or None, modality=modality, embedder=embedder, k=k, where=where,
            mode=mode, group_by=group_by, find=find, label=label,
        )
        .to_pylist()
    )  # fmt: skip
    if json:
        print_json([{name: hit[name] for name in HIT} for hit in found])
        return
    rows = [
        {
            "score": round(hit["score"], 4 if mode == "hybrid" else 3),
            "version": hit["dataset_version"],
            "modality": hit["modality"],
            "label": hit["label"],
            "split": hit["split"],
            "source": hit["source_uri"]
            if hit["source_uri"].endswith(hit["key"])
            else f"{hit['source_uri']}#{hit['key']}",
            "place": hit["span"] if hit["span"] != "full" else "",
            "text": one_line(hit["text"] or ""),
            "feature_id": hit["feature_id"],
        }
        for hit in found
    ]
    if not rows:
        print("nothing found")
        return
    left_out = {name for name in ("text", "label", "place") if not any(row[name] for row in rows)}
    left_out |= {name for name in ("version", "modality") if len({row[name] for row in rows}) == 1}
    versions = ", ".join(dataset_version or ["all versions"])
    print_table(
        f"{versions} {', '.join(modality)}: {query}", rows, [name for name in rows[0] if name not in left_out]
    )
    print("where an answer came from: mm explain FEATURE_ID")
