"""Two samples per modality through all twelve assets, on real photographs, sentences and models."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pyarrow as pa
import pytest

from mm_assets.operations.status import cell_status
from mm_embed_kernels.contracts.pipeline import STAGES
from mm_embed_kernels.errors import UserError
from mm_embed_kernels.identity import content_hash
from mm_resources.cell import Cell
from tests.assets.conftest import platforms
from tests.conftest import write_dataset

VOLATILE = {
    "run_id",
    "created_at",
    "verified_at",
    "published_at",
    "seconds",
    "source_uri",
    "tag",
    "modified_at",
    "lance_version",
    "at",
    "path",
    "offset",
}


def stage_rows(platform: Any, asset: str, cell: Cell) -> list[dict[str, Any]]:
    table = platform.catalog.tables.read(asset, cell).read_all()
    kept = [
        name
        for name in table.column_names
        if name not in VOLATILE and not pa.types.is_floating(table.schema.field(name).type)
    ]
    return sorted(table.select(kept).to_pylist(), key=repr)


def feature_rows(platform: Any, cell: Cell) -> pa.Table:
    pin = platform.registry.pins.get(cell)
    return platform.catalog.features.table(pin.primary).to_table().sort_by("feature_id")


@pytest.fixture
def mine(templates: Any, new_platform: Any, photos: dict[str, Path]) -> tuple[Any, Path]:
    """A platform with its own ``tiny@v1``, and its spec, for tests that change store or sources."""

    def publish(root: Path) -> None:
        with platforms() as make:
            platform = make(root)
            platform.register(write_dataset(root / "data", photos))
            platform.backfill("tiny@v1")

    root = templates.restore("tiny", publish)
    return new_platform(root), root / "data" / "dataset.yaml"


@pytest.mark.parametrize("modality", ["image", "text"])
def test_accounting_holds(published: Any, modality: str) -> None:
    counts = cell_status(published.catalog, published.cell("tiny@v1", modality))
    assert counts["discovered"] == counts["published"] + counts["dropped"] + counts["failed"] == 3
    assert counts["published"] == 2
    assert counts["failures"] == ({"truncated": 1} if modality == "image" else {"bad_record": 1})


def test_search_answers_by_content(published: Any, photos: dict[str, Path]) -> None:
    features = published.features
    for query, label in [
        ("a flower", "flower"),
        ("a temple", "temple"),
        (photos["flower"], "flower"),
        (photos["temple"].read_bytes(), "temple"),
    ]:
        hits = features.search(query, dataset_version="tiny@v1", modality="image", k=2).to_pylist()
        assert hits[0]["label"] == label
        assert hits[0]["score"] >= hits[1]["score"]
    hits = features.search("a pet animal", dataset_version="tiny@v1", modality="text", k=2).to_pylist()
    assert hits[0]["label"] == "pets"
    assert features.search(f"id:{hits[0]['sample_id']}", dataset_version="tiny@v1", modality="text", k=1)[
        "score"
    ][0].as_py() == pytest.approx(1, abs=1e-5)
    filtered = features.search(
        "a pet animal", dataset_version="tiny@v1", modality="text", where="label = 'food' AND user__stars > 4"
    )
    assert filtered["label"].to_pylist() == ["food"]


def test_a_medium_that_is_a_query_is_decoded_in_a_child(
    published: Any, photos: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is a stranger's file like any other."""

    def refuse(*_: object, **__: object) -> None:
        pytest.fail("decoded in the caller's process")

    monkeypatch.setattr("PIL.Image.open", refuse)
    monkeypatch.setattr("av.open", refuse)

    def search(query: bytes | Path) -> Any:
        return published.features.search(query, dataset_version="tiny@v1", modality="image", k=1)

    for query in (photos["flower"], photos["flower"].read_bytes()):
        assert search(query)["label"].to_pylist() == ["flower"]
    with pytest.raises(UserError, match="the query cannot be read: "):
        search(photos["flower"].read_bytes()[:300])


def test_a_feature_row_explains_itself(published: Any, photos: dict[str, Path]) -> None:
    hit = published.features.search("a flower", dataset_version="tiny@v1", modality="image", k=1).to_pylist()[
        0
    ]
    chain = published.features.explain(hit["feature_id"])
    assert chain["blob"]["content_hash"] == content_hash(photos["flower"].read_bytes())
    assert chain["source"]["uri"].endswith("photos/flower/1.jpg")
    assert chain["source"]["label"] == "flower"
    assert {"exact_duplicate", "too_small", "near_constant"} <= {
        rule["rule"] for rule in chain["decisions"]["rules"]
    }
    assert chain["decisions"]["split"] == hit["split"]
    assert len(chain["embedder"]["weights_hash"]) == 64
    assert chain["embedder"]["code_version"]
    assert chain["embedder"]["preprocessing"]["center_crop"] == 224
    assert published.instance.get_run_by_id(chain["run"]["run_id"]) is not None
    assert set(chain["run"]["stages"]) == set(STAGES[:10])
    json.dumps(chain, default=str)
    for other in (hit["sample_id"], hit["segment_id"], f"id:{hit['feature_id']}"):
        assert published.features.explain(other)["feature_id"] == hit["feature_id"]


def test_training_set_is_pinned_and_reproducible(published: Any) -> None:
    ts = published.features.training_set(
        "tiny@v1", modality="text", where="array_has(passed, 'too_short')", columns=["label", "user__stars"]
    )
    table = ts.to_arrow()
    assert sorted(table["label"].to_pylist()) == ["food", "pets"]
    assert table["user__stars"].to_pylist() == [5, 5]
    again = published.features.training_set(manifest=json.loads(json.dumps(ts.manifest)))
    assert again.to_arrow().sort_by("feature_id") == table.sort_by("feature_id")
    batches = list(ts.to_torch(batch_size=1, shuffle=True, seed=1))
    assert [tuple(batch["vector"].shape) for batch in batches] == [(1, 384), (1, 384)]
    assert sorted(batch["feature_id"][0] for batch in batches) == sorted(table["feature_id"].to_pylist())


def test_the_ui_shows_the_feature_rows_not_their_record(published: Any) -> None:
    for asset in ("feature_table", "feature_views"):
        event = published.instance.get_latest_materialization_event(dg.AssetKey(asset))
        metadata = event.asset_materialization.metadata
        assert metadata["dagster/row_count"].value == 2
        assert {"vector", "user__stars", "label"} <= {
            column.name for column in metadata["dagster/column_schema"].schema.columns
        }
    probed = published.instance.get_latest_materialization_event(
        dg.AssetKey("sample_metadata")
    ).asset_materialization
    assert "words" in {column.name for column in probed.metadata["dagster/column_schema"].schema.columns}


def test_figures_are_scalars_that_the_ui_plots(published: Any) -> None:
    """Of the two cells, the last materialization is that of the texts: two sentences and a broken line."""

    def figures(asset: str) -> dict[str, Any]:
        event = published.instance.get_latest_materialization_event(dg.AssetKey(asset))
        return {name: entry.value for name, entry in event.asset_materialization.metadata.items()}

    views, report = figures("feature_views"), figures("lineage_report")
    assert (views["mm/published"], views["mm/recall"], views["dagster/partition_row_count"]) == (2, 1.0, 2)
    assert (report["mm/discovered"], report["mm/cost"] > 0, report["mm/stored_bytes"] > 0) == (3, True, True)
    raw = figures("raw_assets")
    assert (raw["mm/rows"], raw["mm/fetched"], raw["mm/failed"], raw["mm/failed_share"]) == (3, 2, 1, 1 / 3)
    assert (raw["mm/rows_computed"], raw["mm/rows_reused"]) == (2, 0)
    assert all(
        isinstance(value, int | float)
        for asset in ("raw_assets", "curated_samples", "embeddings", "lineage_report")
        for name, value in figures(asset).items()
        if name.startswith("mm/")
    )


def materialized(platform: Any, asset: str) -> Any:
    return platform.instance.get_latest_materialization_event(
        dg.AssetKey(asset)
    ).asset_materialization.metadata


def test_pages_hold_previews_and_lineage_and_no_plots_of_three_samples(published: Any) -> None:
    """Columns have a lineage, and the preview has keys and figures alone."""
    assert "funnel" not in materialized(published, "lineage_report")
    assert "signals" not in materialized(published, "curated_samples")
    lineage = materialized(published, "curated_samples")["dagster/column_lineage"].lineage.deps_by_column
    assert [(dep.asset_key.to_user_string(), dep.column_name) for dep in lineage["content_hash"]] == [
        ("validated_samples", "content_hash")
    ]
    assert "kept" not in lineage
    preview = materialized(published, "segments")["preview"].value
    assert "segment_id" in preview
    assert "cat" not in preview


def test_decisions_record_every_rule(published: Any) -> None:
    rows = published.features.decisions("tiny@v1", "text").to_pylist()
    assert len(rows) == 2
    for row in rows:
        assert row["kept"] is True
        assert {rule["rule"] for rule in row["rules"]} >= {
            "empty",
            "too_short",
            "unsupported_language",
            "exact_duplicate",
        }


def test_same_inputs_same_versions_and_no_work(published_copy: Any) -> None:
    published = published_copy
    before = {m: published.registry.pins.get(published.cell("tiny@v1", m)) for m in ("image", "text")}
    results = published.backfill("tiny@v1")
    for modality, result in results.items():
        assert result.status == "unchanged"
        assert set(result.computed.values()) == {0}
        assert sum(result.reused.values()) > 0
        assert published.registry.pins.get(published.cell("tiny@v1", modality)) == before[modality]


def test_a_new_version_pays_for_new_bytes_only(mine: tuple[Any, Path], photos: dict[str, Path]) -> None:
    platform, dataset = mine
    folder = dataset.parent / "photos"
    (folder / "flower" / "1.jpg").rename(folder / "flower" / "renamed.jpg")
    from PIL import Image

    with Image.open(photos["temple"]) as image:
        image.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(folder / "temple" / "2.jpg")
    dataset.write_text(dataset.read_text().replace("version: v1", "version: v2"))
    platform.register(dataset)
    results = platform.backfill("tiny@v2")
    assert results["image"].computed == {"fetch": 2, "probe": 1, "segment": 1, "embed:conse": 1}
    assert results["text"].computed == {"fetch": 0, "probe": 0, "segment": 0, "embed:minilm": 0}
    assert results["text"].status == "published"
    assert platform.registry.pins.get(platform.cell("tiny@v1", "image")).accounting["published"] == 2
    assert platform.registry.pins.get(platform.cell("tiny@v2", "image")).accounting["published"] == 3


def test_a_frozen_version_stays_frozen(mine: tuple[Any, Path], photos: dict[str, Path]) -> None:
    platform, dataset = mine
    shutil.copy(photos["temple"], dataset.parent / "photos" / "temple" / "late.jpg")
    assert platform.backfill("tiny@v1", "image")["image"].status == "unchanged"


def test_a_source_that_changed_after_its_listing_is_reported(platform: Any, dataset: Path) -> None:
    platform.register(dataset)
    spec = platform.registry.spec("tiny", "v1")
    assert [platform.registry.listings.freeze(spec, source) for source in spec.sources] == ["", ""]
    with (dataset.parent / "photos" / "flower" / "1.jpg").open("ab") as stream:
        stream.write(b"more")
    platform.backfill("tiny@v1", "image", override="to see the rest")
    counts = cell_status(platform.catalog, platform.cell("tiny@v1", "image"))
    assert counts["failures"] == {"source_changed": 1, "truncated": 1}
    assert counts["published"] == 1


def test_linked_modalities_join_and_share_their_split(platform: Any, dataset: Path) -> None:
    """A caption links to its photo, and the photo has no link back."""
    folder = dataset.parent
    captions = [
        {"id": name, "text": f"a picture of a {name}", "photo": f"{name}/1.jpg"}
        for name in ("flower", "temple")
    ]
    (folder / "sentences.jsonl").write_text("\n".join(map(json.dumps, captions)) + "\n")
    dataset.write_text(dataset.read_text().replace("text: text, label: topic", "text: text, link: photo"))
    platform.register(dataset)
    platform.backfill("tiny@v1")
    rows = (
        platform.features.training_set(
            "tiny@v1", modality=["image", "text"], columns=["label", "split", "text"]
        )
        .to_arrow()
        .to_pylist()
    )
    assert {row["image__label"]: row["text__text"] for row in rows} == {
        name: f"a picture of a {name}" for name in ("flower", "temple")
    }
    assert all(row["image__split"] == row["text__split"] for row in rows)
    ts = platform.features.training_set("tiny@v1", modality=["image", "text"])
    ids = [[batch["image__feature_id"][0] for batch in ts.to_torch(batch_size=1)] for _ in range(2)]
    assert ids[0] == ids[1] == ts.to_arrow()["image__feature_id"].to_pylist()


@pytest.mark.usefixtures("ray_cluster")
@pytest.mark.parametrize("modality", ["image", pytest.param("text", marks=pytest.mark.slow)])
def test_ray_and_inline_agree(published: Any, published_root: Path, platform: Any, modality: str) -> None:
    """On Ray each stage loads its libraries in an actor of its own: pictures alone in `make test`."""
    platforms, ledger = {"inline": published, "ray": platform}, {}
    platform.register(published_root / "data" / "dataset.yaml")
    results = platform.backfill("tiny@v1", modality, mode="ray")
    assert all(result.status == "published" for result in results.values()), results
    for mode, platform in platforms.items():
        rows = platform.catalog.ledger.read().read_all().to_pylist()
        ledger[mode] = [row for row in rows if row["modality"] == modality]
        assert {row["mode"] for row in ledger[mode] if row["mode"]} == {mode}
        assert all(
            row["cpu_seconds"] > 0 and row["peak_bytes"] > 10 << 20
            for row in ledger[mode]
            if row["samples_out"] is not None
        )
    cell = platforms["inline"].cell("tiny@v1", modality)
    for asset in STAGES[:9]:
        assert stage_rows(platforms["inline"], asset, cell) == stage_rows(platforms["ray"], asset, cell), (
            asset
        )
    left, right = (feature_rows(platform, cell) for platform in platforms.values())
    assert left["feature_id"] == right["feature_id"]
    one, two = (np.array(table["vector"].to_pylist()) for table in (left, right))
    assert np.all(np.einsum("nd,nd->n", one, two) > 1 - 1e-4)
    figures = [
        {
            (row["stage"], row["modality"], row["kernel"]): [
                row[name] for name in ("samples_in", "samples_out", "bytes_read")
            ]
            for row in rows
        }
        for rows in ledger.values()
    ]
    assert figures[0] == figures[1]
    if modality == "image":
        assert figures[0]["curated_samples", "image", None] == [2, 2, 0]
        assert figures[0]["raw_assets", "image", "fetch"][:2] == [3, 3]
        assert (
            figures[0]["raw_assets", "image", "fetch"][2]
            > figures[0]["segments", "image", "segment"][2]
            > 300_000
        )
    versions = [
        {asset: p.catalog.tables.meta(asset, cell).data_version for asset in STAGES[:9]}
        for p in platforms.values()
    ]
    assert versions[0] == versions[1]


def test_an_undeclared_cell_is_empty_and_valid(platform: Any, dataset: Path) -> None:
    from mm_assets.definitions import build
    from mm_assets.operations.backfill import backfill_cell

    text = dataset.read_text()
    dataset.write_text("\n".join(line for line in text.splitlines() if "photos" not in line))
    platform.register(dataset)
    result = backfill_cell(
        platform.instance,
        build(store=platform.settings.store, mode="inline"),
        Cell("tiny", "v1", "image"),
        platform.catalog,
    )
    assert result.status == "published", result
    assert cell_status(platform.catalog, Cell("tiny", "v1", "image"))["discovered"] == 0
