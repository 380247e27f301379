"""An alias moves only to a version that passes its gate, and readers of the alias see that version."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mm_assets.operations.promotion import promote, roll_back
from mm_embed_kernels.errors import UserError
from mm_resources.storage.lance_errors import Fenced

SPEC = """
name: notes
version: {version}
embedders: {{text: [wordllama]}}
sources:
  - {{name: notes, modality: text, uri: notes.jsonl, record: {{id: id, text: text, label: topic}}}}
"""
TOPICS = {
    "rivers": "The river number {} runs slowly into the sea.",
    "bread": "Loaf number {} is baked with rye and salt.",
}


def write(platform: Any, folder: Path, version: str, counts: dict[str, int], more: str = "") -> str:
    rows = [
        {"id": f"{topic}-{i}", "text": TOPICS[topic].format(i), "topic": topic}
        for topic, count in counts.items()
        for i in range(count)
    ]
    (folder / "notes.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    spec = folder / f"{version}.yaml"
    spec.write_text(SPEC.format(version=version) + more)
    name: str = platform.register(spec)
    assert platform.backfill(name)["text"].status == "published"
    return name


@pytest.fixture
def notes(platform: Any, tmp_path: Path) -> tuple[Any, Path]:
    folder = tmp_path / "notes"
    folder.mkdir()
    write(platform, folder, "v1", {"rivers": 6, "bread": 6})
    return platform, folder


def test_readers_of_the_alias_get_what_passed(notes: tuple[Any, Path]) -> None:
    platform, folder = notes
    features = platform.features

    def answer() -> set[str]:
        found = features.search("salty rye bread", dataset_version="notes@production", modality="text", k=3)
        assert (
            features.decisions("notes@production", "text").num_rows
            == features.training_set("notes@production", modality="text").to_arrow().num_rows
        )
        return set(found["dataset_version"].to_pylist())

    with pytest.raises(
        UserError,
        match="nothing was promoted to notes@production; promote a version: `mm promote notes@VERSION --to production`",
    ):
        answer()
    first = promote(platform.catalog, "notes@v1", "production")
    assert (first.number, first.version, first.pins) == (1, "v1", {"text": 1})
    assert answer() == {"notes@v1"}

    write(platform, folder, "v2", {"rivers": 6, "bread": 2})
    with pytest.raises(
        UserError,
        match=r"text.coverage: share of what label 'bread' has now is 0.333, at least 0.5 .* --override REASON",
    ):
        promote(platform.catalog, "notes@v2", "production")
    assert answer() == {"notes@v1"}, "a closed gate moves nothing"
    forced = promote(platform.catalog, "notes@v2", "production", override="bread is out of fashion")
    assert forced.reason == "bread is out of fashion"
    assert [check["name"] for check in forced.checks if check["waived"]] == ["text.coverage"]
    assert answer() == {"notes@v2"}
    assert roll_back(platform.catalog, "notes", "production").dataset_version == "notes@v1"
    assert answer() == {"notes@v1"}
    assert [move.version for move in platform.registry.aliases.history("notes", "production")] == [
        "v1",
        "v2",
        "v1",
    ]


def test_explain_reads_the_promoted_pin(notes: tuple[Any, Path]) -> None:
    """A later pin of the promoted version changes nothing behind the alias."""
    platform, _ = notes
    promote(platform.catalog, "notes@v1", "production")
    first = platform.registry.published_pin("notes@v1", "text")
    platform.registry.pins.publish(first.cell, replace(first, number=2, run_id="later"))
    hits = platform.features.search("rye bread", dataset_version="notes@v1", modality="text", k=1)
    found = hits["feature_id"][0].as_py()

    def run(dataset_version: str | None) -> tuple[int, bool]:
        told = platform.features.explain(found, dataset_version)["run"]
        return told["pin"], told["published_by"] == "later"

    assert run("notes@production") == (1, False)
    assert run("notes@v1") == run(None) == (2, True)


def test_a_spec_sets_its_own_thresholds(notes: tuple[Any, Path]) -> None:
    platform, folder = notes
    promote(platform.catalog, "notes@v1", "staging")
    write(
        platform,
        folder,
        "v2",
        {"rivers": 6, "bread": 2},
        "promotion: {min_label_share: 0.2, min_centroid_cosine: 0.9999}\n",
    )
    with pytest.raises(UserError, match=r"text\.drift: cosine of the mean vectors is 0\.9") as closed:
        promote(platform.catalog, "notes@v2", "staging")
    assert "coverage" not in str(closed.value)


def test_the_users_own_test_has_a_say(
    notes: tuple[Any, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    platform, _ = notes
    (tmp_path / "my_tests.py").write_text(
        "def finds_bread(features, candidate, served):\n"
        "    found = features.search('rye bread', dataset_version=candidate, modality='text', k=1)['label'][0].as_py()\n"
        "    return found == 'bread' and served is None, f'the first answer is {found}'\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    moved = promote(platform.catalog, "notes@v1", "candidate", "my_tests:finds_bread")
    assert moved.checks[-1]["description"] == "evaluation my_tests:finds_bread: the first answer is bread"
    with pytest.raises(UserError, match="the first answer is bread"):
        promote(platform.catalog, "notes@v1", "candidate", "my_tests:finds_bread")
    with pytest.raises(UserError, match="--evaluate my_tests:nothing"):
        promote(platform.catalog, "notes@v1", "candidate", "my_tests:nothing")
    sys.modules.pop("my_tests")


def test_what_cannot_be_promoted(notes: tuple[Any, Path]) -> None:
    platform, folder = notes
    with pytest.raises(UserError, match="alias 'latest' is not known"):
        promote(platform.catalog, "notes@v1", "latest")
    with pytest.raises(UserError, match="nothing was promoted to notes@production"):
        roll_back(platform.catalog, "notes", "production")
    with pytest.raises(UserError, match="alias 'prodution' is not known; there are: candidate, champion"):
        roll_back(platform.catalog, "notes", "prodution")
    with pytest.raises(UserError, match=r"dataset name '\.\./notes' must match"):
        roll_back(platform.catalog, "../notes", "production")
    moved = promote(platform.catalog, "notes@v1", "production")
    with pytest.raises(UserError, match="there is nothing to go back to"):
        roll_back(platform.catalog, "notes", "production")
    with pytest.raises(Fenced, match="was moved by another promotion meanwhile"):
        platform.registry.aliases.move(replace(moved, version="v9"))
    spec = folder / "v3.yaml"
    spec.write_text(SPEC.format(version="v3"))
    platform.register(spec)
    with pytest.raises(UserError, match="nothing is published of notes@v3"):
        promote(platform.catalog, "notes@v3", "production")
