"""The version that follows another."""

from __future__ import annotations

import itertools
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import yaml

from mm_embed_kernels.errors import UserError
from mm_embed_kernels.spec.dataset_spec import DatasetSpec, parse_spec
from mm_embed_kernels.spec.model import seconds
from mm_embed_kernels.spec.next_version import next_names, resolve_version, successor, to_yaml

SOURCE = {"name": "photos", "modality": "video", "uri": "/data/clips", "label": {"from": "parent_dir"}}


def spec_of(**top: Any) -> DatasetSpec:
    raw = {"name": "birds", "version": "v1", "sources": [SOURCE], **top}
    return parse_spec(yaml.safe_dump(raw, sort_keys=False), "here")


def test_a_successor_differs_in_its_version_and_parent_alone() -> None:
    spec = spec_of(
        parent="v0",
        schema={"stars": "int"},
        splits={"test": 0.5, "train": 0.5},
        watch={"sources": "register"},
    )
    following = successor(spec, "v2")
    assert (following.version, following.parent) == ("v2", "v1")
    assert following.model_copy(update={"version": "v1", "parent": "v0"}) == spec
    assert list(following.splits) == ["test", "train"]


@pytest.mark.parametrize(
    ("name", "line"),
    [("v1", "a version cannot be its own parent"), ("latest", "is an alias"), ("a/b", "must match")],
)
def test_a_successor_needs_a_name_of_its_own(name: str, line: str) -> None:
    with pytest.raises(UserError, match=line):
        successor(spec_of(), name)


def test_names_of_versions() -> None:
    assert resolve_version(spec_of(), "v2") == resolve_version(spec_of(), "birds@v2") == "v2"
    with pytest.raises(UserError, match=r"bees@v2 is of another dataset than birds@v1; .*: birds@v2"):
        resolve_version(spec_of(), "bees@v2")
    with pytest.raises(UserError, match="'birds@' is not DATASET@VERSION"):
        resolve_version(spec_of(), "birds@")


@pytest.mark.parametrize(
    ("version", "scheme", "names"),
    [
        ("v1", "number", ["v2", "v3"]),
        ("v9", "number", ["v10", "v11"]),
        ("1.9-beta", "number", ["1.10-beta", "1.11-beta"]),
        ("run007", "number", ["run008", "run009"]),
        ("first", "number", ["first-2", "first-3"]),
        ("v1", "date", ["2026-11-25", "2026-11-25.2"]),
    ],
)
def test_next_names(version: str, scheme: str, names: list[str]) -> None:
    assert list(itertools.islice(next_names(version, scheme, date(2026, 11, 25)), 2)) == names


@pytest.mark.parametrize("top", [
    {},
    {"splits": {"test": 0.1, "validation": 0.1, "train": 0.8}},
    {"version": "2024", "schema": {"größe": "float"}, "gates": {"max_failed_share": 0.0}, "watch": {"sources": "propose", "every": "1d"}},
    {"sources": [SOURCE, {"name": "sounds", "modality": "audio", "track_of": "photos"}]},
    {"sources": [SOURCE, {"name": "sounds", "modality": "audio", "track_of": "photos", "label": None}]},
], ids=["defaults", "order of the splits", "odd values", "tracks", "tracks without what their videos have"])  # fmt: skip
def test_a_spec_as_yaml_is_the_same_spec(top: dict[str, Any], tmp_path: Path) -> None:
    spec = spec_of(**top)
    again = parse_spec(to_yaml(spec), "there", str(tmp_path))
    assert again == spec
    assert again.digest == spec.digest


def test_what_is_as_by_default_is_not_written() -> None:
    assert set(yaml.safe_load(to_yaml(spec_of()))) == {"name", "version", "sources", "splits"}


def test_how_sources_are_watched_is_no_part_of_what_is_frozen() -> None:
    assert spec_of(watch={"sources": "register", "every": "30s"}).digest == spec_of().digest
    assert parse_spec(to_yaml(spec_of()) + "watch: {sources: off}\n", "here").watch.sources == "off"


@pytest.mark.parametrize(
    "watch", [{"every": "1 week"}, {"every": "0s"}, {"settle": 10}, {"sources": "maybe"}, {"often": "1h"}]
)
def test_a_watch_that_cannot_be(watch: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"watch\."):
        spec_of(watch=watch)


def test_seconds() -> None:
    assert [seconds(text) for text in ("45s", "10min", "2h", "1d")] == [45, 600, 7200, 86_400]
