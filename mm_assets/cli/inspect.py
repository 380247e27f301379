"""`mm status`, `mm search`, `mm explain`, `mm try`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from mm_assets.cli.output import one_line, print_json, print_table, print_tree

Json = Annotated[bool, typer.Option("--json", help="machine-readable output")]
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


def add_to(app: typer.Typer) -> None:
    for command in (status, search, explain):
        app.command()(command)
    app.command("try")(try_)


def status(
    dataset_version: Annotated[str, typer.Argument(metavar="DATASET@VERSION")],
    modality: Annotated[str | None, typer.Option(help="only this modality")] = None,
    drift: Annotated[bool, typer.Option("--drift", help="list the sources now and compare; else what the last look found is told")] = False,
    json: Json = False,
) -> None:
    """The accounting of each cell, discovered = published + dropped + failed, and whether the sources have moved on."""
    from mm_assets.status import dataset_status
    from mm_resources.settings import Settings
    from mm_resources.store import Store

    found = dataset_status(Store(Settings.from_environment().store), dataset_version, modality, look=drift)
    if json:
        print_json(found)
        return
    columns = ["modality", "discovered", "published", "dropped", "failed", "segments", "features", "failures", "published_at"]
    rows = [{**cell, "published_at": (cell["published_at"] or "")[:19].replace("T", " ")} for cell in found["cells"]]
    print_table(f"{dataset_version}: discovered = published + dropped + failed", rows, columns)
    for cell in found["cells"]:
        if cell["undecided"]:
            print(
                f"{cell['modality']}: {cell['undecided']:,} samples are undecided: the run goes on, or died; mm backfill {dataset_version}"
            )
        for gate in _last_gates(cell["gates"]):
            told = "passed" if gate["passed"] else "overridden" if gate["waived"] else "closed"
            print(f"{cell['modality']}: gate {gate['name']} {told}: {gate['description']}")
        if "blocked" in cell:
            print(f"{cell['modality']} is blocked by {cell['blocked']}")
    print(found["drift_summary"])


def _last_gates(gates: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The verdicts with numbers of the stage at which a gate is closed, or else of the last one."""
    shut = [gate["stage"] for gate in gates if not gate["passed"] and not gate["waived"]]
    return [gate for gate in gates if gate["stage"] == (shut or [gates[-1]["stage"]])[0] and gate["figures"]]


def search(
    query: Annotated[str, typer.Argument(help="text, a media path, or id:FEATURE|SEGMENT|SAMPLE")],
    modality: Annotated[list[str], typer.Option(help="which modality to search; repeat it for several that share a space")],
    dataset_version: Annotated[
        list[str] | None, typer.Option(metavar="DATASET@VERSION", help="which published version to search; repeat it; by default all")
    ] = None,
    k: Annotated[int, typer.Option("-k", min=1, help="number of answers")] = 10,
    where: Annotated[str | None, typer.Option(metavar="SQL", help="filter on the feature columns, e.g. \"split = 'train'\"")] = None,
    embedder: Annotated[str | None, typer.Option(help="table of this embedder; by default the primary one")] = None,
    mode: Annotated[str, typer.Option(help="vector, text (words of texts and transcripts), or hybrid")] = "vector",
    group_by: Annotated[str | None, typer.Option(help="sample or entity: the best hit of each")] = None,
    find: Annotated[str, typer.Option(help="neighbours, duplicates, or hard_negatives (near, of another label)")] = "neighbours",
    label: Annotated[str | None, typer.Option(help="of the query, for hard negatives; by default that of its sample")] = None,
    json: Json = False,
) -> None:
    """The nearest features of what is published, best first."""
    from mm_resources.features import FeatureStore

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
            "source": hit["source_uri"] if hit["source_uri"].endswith(hit["key"]) else f"{hit['source_uri']}#{hit['key']}",
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
    print_table(f"{versions} {', '.join(modality)}: {query}", rows, [name for name in rows[0] if name not in left_out])
    print("where an answer came from: mm explain FEATURE_ID")


def explain(
    identifier: Annotated[str, typer.Argument(metavar="ID", help="feature, segment or sample id")],
    dataset_version: Annotated[str | None, typer.Option(metavar="DATASET@VERSION", help="look only there")] = None,
    json: Json = False,
) -> None:
    """Where a feature came from: source, blob, decisions, segment, embedder, run."""
    from mm_resources.features import FeatureStore

    found = FeatureStore.open().explain(identifier, dataset_version)
    if json:
        print_json(found)
    else:
        print_tree(f"[bold]feature {found['feature_id']}[/bold]", found)


def try_(
    embedder: Annotated[str, typer.Argument(help="the embedder to try")],
    dataset_version: Annotated[str, typer.Option(metavar="DATASET@VERSION", help="whose published segments it is tried on")],
    modality: Annotated[str, typer.Option(help="which modality")],
    sample: Annotated[int, typer.Option(min=2, help="number of segments")] = 500,
    json: Json = False,
) -> None:
    """Run an embedder on a sample: its rate, its cost for the whole cell, and its neighbours beside the current ones."""
    from mm_assets.trying import try_embedder
    from mm_resources.features import FeatureStore

    features = FeatureStore.open()
    trial = try_embedder(features, features.registry.cells(dataset_version, modality)[0], embedder, sample)
    if json:
        print_json({**vars(trial), "cell_seconds": trial.cell_seconds, "neighbours": [vars(item) for item in trial.neighbours]})
        return
    rows = [
        {"of": one_line(item.of, 40), trial.current: "\n".join(item.current), trial.embedder + " ": "\n".join(item.tried)}
        for item in trial.neighbours
    ]
    print_table(f"nearest neighbours among {trial.sample:,} segments of {dataset_version} {modality}", rows)
    print(f"{trial.overlap:.0%} of the neighbours are the same; {trial.failed:,} segments failed")
    if trial.seconds_per_segment is None or trial.cell_seconds is None:
        print(f"all {trial.sample:,} vectors were in the cache, so there is no rate")
    else:
        rate = f"{1 / trial.seconds_per_segment:,.1f} segments/s"
        print(f"{rate} in one process: {trial.cell_seconds:,.0f} s for the {trial.cell_segments:,} segments of the cell")
