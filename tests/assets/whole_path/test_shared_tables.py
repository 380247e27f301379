"""Versions of a dataset share a feature table, and give what tables written whole give: rows, digests, answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mm_assets.assets import feature_table
from mm_assets.cells.cell_run import CellRun
from mm_embed_kernels import contracts
from mm_embed_kernels.contracts.pipeline import STAGES
from mm_resources.features.versions import MAKER
from mm_resources.maintenance.upkeep import upkeep
from mm_resources.monitoring.version_diff import diff
from mm_resources.registry.pins import Pin
from tests.assets.conftest import Maker, Platform
from tests.resources.maintenance.test_lineage_replays import NOW

SPEC = """
name: notes
version: {version}
{parent}schema: {{stars: int}}
embedders: {{text: [wordllama]}}
sources:
  - {{name: notes, modality: text, uri: notes.jsonl, record: {{id: id, text: text, label: topic}}}}
"""
PLACES = ["harbour", "mountain", "station", "garden", "library", "bakery", "bridge", "theatre"]
QUERIES = ("a walk to the bridge", "rain", "birds in October")
# Queries of whose words one note of a version has the most.
FIRST = {
    "v3": ("it rained from morning to night", "birds in October"),
    "v2": ("the ferry to the other side",),
}
# In the order of their publishes: a child, an older one without a parent behind the newer, a sibling of the child.
VERSIONS = {"v1": "", "v3": "parent: v1\n", "v2": "", "v4": "parent: v1\n"}


def notes(version: str) -> list[dict[str, Any]]:
    """Notes of one version: most as in all others, some altered, re-labelled, re-rated, removed or added."""
    rows = {
        i: {"id": i, "text": f"On day {i} we walked to the {PLACES[i % 8]} and counted {i * 7} birds.", "topic": "walk",
            "stars": i % 5}
        for i in range(48)
    }  # fmt: skip
    if version == "v3":
        rows[3]["text"] = "Nobody walked anywhere on this day since it rained from morning to night."
        rows[4]["topic"], rows[5]["stars"] = "rain", 9
        del rows[6]
        rows[90] = {
            "id": 90,
            "text": "A tenth of the birds had left by the end of October.",
            "topic": "birds",
            "stars": 1,
        }
    if version == "v2":
        rows[3]["text"] = "The old bridge was closed, so that all of us took the ferry to the other side."
        del rows[10], rows[11]
    if version == "v4":
        rows[7]["topic"] = "rain"
    return list(rows.values())


def publish(platform: Platform, folder: Path, version: str) -> Pin:
    text, file = "\n".join(map(json.dumps, notes(version))) + "\n", folder / "notes.jsonl"
    # Not written for the second platform: its time is part of the listing.
    if not file.exists() or file.read_text() != text:
        file.write_text(text)
    spec = folder / f"{version}.yaml"
    spec.write_text(SPEC.format(version=version, parent=VERSIONS[version]))
    name = platform.register(spec)
    assert platform.backfill(name)["text"].status == "published"
    return pin_of(platform, version)


def pin_of(platform: Platform, version: str) -> Pin:
    pin = platform.registry.pins.get(platform.cell(f"notes@{version}", "text"))
    assert pin is not None
    return pin


def stage_rows(platform: Platform, version: str, stage: str) -> list[dict[str, Any]]:
    """The rows of a stage, but for columns that name their maker, or where and when their content was stored."""
    left_out = {*getattr(contracts, stage.upper()).makers, "path", "offset", "seconds", "modified_at"}
    rows = platform.catalog.tables.read(stage, platform.cell(f"notes@{version}", "text")).read_all()
    return sorted(rows.drop([name for name in left_out if name in rows.schema.names]).to_pylist(), key=repr)


def facts(platform: Platform, version: str) -> dict[str, Any]:
    """What readers get of a version, and the data versions of its stages."""
    cell, pin, features = (
        platform.cell(f"notes@{version}", "text"),
        pin_of(platform, version),
        platform.features,
    )
    name, table = cell.dataset_version, pin.primary
    rows = platform.catalog.features.dataset(table.table, table.lance_version).to_table().drop(list(MAKER))
    exported = features.training_set(name, modality="text", columns=["label", "user__stars"])
    loaded = exported.to_torch(batch_size=7, shuffle=True, seed=3)
    return {
        "data versions": {stage: platform.catalog.tables.meta(stage, cell).data_version for stage in STAGES},
        "stages": {stage: stage_rows(platform, version, stage) for stage in STAGES[:9]},
        "pin": (pin.data_version, table.rows, table.digest, table.index, table.recall, pin.accounting),
        "rows": sorted(rows.to_pylist(), key=lambda row: str(row["feature_id"])),
        "set": (exported.manifest["rows"], exported.manifest["digest"]),
        "loaded": sorted(feature for batch in loaded for feature in batch["feature_id"]),
        "found by vector": [
            features.search(query, dataset_version=name, modality="text", k=5).drop(["score"]).to_pylist()
            for query in QUERIES
        ],
        # All that match: notes of one place score alike, and which of them come first is nobody's promise.
        "found by words": [
            {row["feature_id"]: row for row in found.drop(["score"]).to_pylist()}
            for query in QUERIES
            for mode in ("text", "hybrid")
            for found in [features.search(query, dataset_version=name, modality="text", mode=mode, k=60)]
        ],
        "first by words": [
            features.search(query, dataset_version=name, modality="text", mode="text", k=1)["key"].to_pylist()
            for query in FIRST.get(version, ())
        ],
    }  # fmt: skip


def test_versions_share_a_table_and_equal_whole_writes(
    new_platform: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    shared, whole = new_platform(tmp_path / "shared"), new_platform(tmp_path / "whole")
    for version in VERSIONS:
        publish(shared, folder, version)
        with monkeypatch.context() as patched:
            patched.setattr(feature_table, "bases_of", lambda *_: [])
            patched.setattr(CellRun, "other_versions", lambda _: [])
            publish(whole, folder, version)
    upkeep(shared.catalog, NOW)
    pins = [pin_of(shared, version) for version in VERSIONS]
    assert {pin.place("raw_assets")["table"] for pin in pins} == {"stages/raw_assets/notes/v1/text.lance"}
    assert len({pin_of(whole, version).place("raw_assets")["table"] for version in VERSIONS}) == len(VERSIONS)
    assert {pin.primary.table for pin in pins} == {"notes.v1.text.wordllama"}
    assert len({pin.primary.lance_version for pin in pins}) == len(VERSIONS)
    assert {pin_of(whole, version).primary.table for version in VERSIONS} == {
        f"notes.{version}.text.wordllama" for version in VERSIONS
    }
    for version in VERSIONS:
        one, other = facts(shared, version), facts(whole, version)
        for name, value in one.items():
            assert value == other[name], (version, name)
    cells = [shared.cell(f"notes@{version}", "text") for version in ("v1", "v3")]
    assert diff(shared.catalog, *cells) == diff(whole.catalog, *cells)
    made = {
        row["key"]: row["version"]
        for row in shared.catalog.features.rows(pin_of(shared, "v3"), ["key", "version"])
        .read_all()
        .to_pylist()
    }
    assert {key for key, version in made.items() if version == "v3"} == {"3", "4", "5", "90"}
    hit = shared.features.search(
        "birds in October", dataset_version="notes@v3", modality="text", k=1
    ).to_pylist()[0]
    assert shared.features.explain(hit["feature_id"], "notes@v3")["blob"]


def test_a_publish_of_the_same_rows_names_the_new_stages(new_platform: Maker, tmp_path: Path) -> None:
    platform = new_platform(tmp_path / "platform")
    first = publish(platform, tmp_path, "v1")
    for stage in ("raw_assets", "feature_table", "feature_views"):
        platform.catalog.tables.mark_stale(stage, first.cell)
    assert platform.backfill("notes@v1")["text"].status == "published"
    second = pin_of(platform, "v1")
    assert second.number == 2
    assert second.tables[0].lance_version == first.tables[0].lance_version
    assert second.place("feature_table")["ref"] > first.place("feature_table")["ref"]
    assert platform.backfill("notes@v1")["text"].status == "unchanged"
    assert pin_of(platform, "v1") == second
