"""Stages on the difference where the store has lost something give what full runs give."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mm_assets.assets import feature_table
from mm_assets.cells.cell_run import CellRun, embedder_rules
from mm_embed_kernels.identity import content_hash
from tests.assets.conftest import Maker, Platform
from tests.assets.whole_path.test_stage_increments import facts, full_runs, require_equal

SPEC = """
name: notes
version: {version}
embedders: {{text: [wordllama]}}
gates: {{max_failed_share: 0.9}}
sources: [{{name: files, modality: text, uri: 'files/*.txt'}}]
"""


class Twins:
    """Two platforms with the same sources: one computes by difference, one in full."""

    def __init__(self, root: Path, make: Maker) -> None:
        self.folder = root / "data"
        (self.folder / "files").mkdir(parents=True)
        self.shared, self.whole = make(root / "shared"), make(root / "whole")
        for i in range(12):
            self.write(i, f"File {i} tells of a walk of {i} hours through the town and over the bridge.")

    def write(self, i: int, text: str) -> Path:
        path = self.folder / "files" / f"{i}.txt"
        path.write_text(text)
        return path

    def change(self, harm: Callable[[Platform], object]) -> None:
        harm(self.shared)
        harm(self.whole)

    def publish(self, version: str) -> None:
        spec = self.folder / f"{version}.yaml"
        spec.write_text(SPEC.format(version=version))
        assert self.shared.backfill(self.shared.register(spec))["text"].status == "published"
        with full_runs():
            assert self.whole.backfill(self.whole.register(spec))["text"].status == "published"
        require_equal(facts(self.shared, version), facts(self.whole, version), version)


@pytest.fixture
def twins(tmp_path: Path, new_platform: Maker) -> Twins:
    return Twins(tmp_path, new_platform)


def _remove_files(platform: Platform, part: str) -> None:
    for name in platform.store.tables(part):
        for path in Path(platform.store.uri(name), "data").glob("*.lance"):
            path.unlink()


def _remove_blob(platform: Platform, text: str) -> None:
    """Remove the pack of a content, which holds nothing else."""
    rows = platform.catalog.blobs.index.rows().read_all().to_pylist()
    path = next(row["path"] for row in rows if row["content_hash"] == content_hash(text.encode()))
    assert [row["path"] for row in rows].count(path) == 1
    platform.store.remove(path)


def test_lost_blob_is_fetched_again_when_its_source_is_back(twins: Twins) -> None:
    twins.publish("v1")
    text = "This one tells of a storm that took the roof of the old station."
    lost = twins.write(20, text)
    twins.publish("v2")
    twins.change(lambda platform: _remove_blob(platform, text))
    at, away = lost.stat().st_mtime_ns, lost.rename(twins.folder / "away")
    twins.shared.backfill("notes@v2")
    with full_runs():
        twins.whole.backfill("notes@v2")
    require_equal(facts(twins.shared, "v2"), facts(twins.whole, "v2"), "lost")
    found: dict[Any, Any] = facts(twins.shared, "v2")
    assert found["content_blobs", "meta"][3] == 1, "failures"
    os.utime(away.rename(lost), ns=(at, at))
    twins.write(3, "Nobody walked anywhere on that day, since it rained from morning to night.")
    twins.publish("v3")
    found = facts(twins.shared, "v3")
    assert not found["all", "failures"]


def test_lost_vectors_are_computed_again_for_a_whole_table(twins: Twins) -> None:
    twins.publish("v1")
    twins.write(3, "Nobody walked anywhere on that day, since it rained from morning to night.")
    for part in ("cache/embed-wordllama", "features"):
        twins.change(lambda platform, part=part: _remove_files(platform, part))  # type: ignore[misc]
    twins.publish("v2")


def test_lost_vectors_count_in_the_check_of_languages(twins: Twins) -> None:
    for i in range(20, 23):
        twins.write(
            i, f"Am Morgen des {i}. Tages gingen wir mit den Kindern durch den Wald und sangen Lieder."
        )
    twins.publish("v1")
    found: dict[Any, Any] = facts(twins.shared, "v1")
    languages = [each for each in found["normalized_features", "checks"] if "languages" in each["name"]]
    assert languages[0]["figures"], "texts that the embedder does not know"
    twins.write(3, "Nobody walked anywhere on that day, since it rained from morning to night.")
    twins.change(lambda platform: _remove_files(platform, "cache/embed-wordllama"))
    twins.publish("v2")


def test_lost_inputs_of_a_base_are_a_full_run(twins: Twins) -> None:
    twins.publish("v1")
    before = [twins.write(i, f"In winter {i} of the guests came by sledge over the lake.") for i in range(9)]
    twins.publish("v2")
    twins.change(lambda platform: _remove_files(platform, "stages/dataset_registry/notes/v1"))
    before[0].write_text("Only one of the guests came on foot, through the deep snow of the forest.")
    twins.publish("v3")


def test_names_of_embedders_decide_about_rows() -> None:
    assert feature_table.feature_table.row_inputs is not None
    made = [type("Made", (), {"fingerprint": "f", "name": name})() for name in ("st:/a", "st:/b")]
    one, other = (type("Run", (), {"embedders": [each]})() for each in made)
    rules: Callable[[CellRun], object] = embedder_rules
    assert rules(one) != rules(other)
