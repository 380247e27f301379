"""The difference between a source and its frozen listing."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from mm_embed_kernels.spec.dataset_spec import DatasetSpec
from mm_resources.ingestion.source_drift import NAMED, Drift
from mm_resources.registry.registry import Registry
from tests.resources.places import Place, bucket
from tests.resources.specs import freeze, spec_of, write


def look(registry: Registry, spec: DatasetSpec) -> Drift:
    return registry.drifts.check(spec, spec.sources[0])


def watched(registry: Registry, uri: str, **source: Any) -> DatasetSpec:
    spec = spec_of({"uri": uri, **source})
    assert freeze(registry, spec) == [""]
    assert str(look(registry, spec)) == ""
    return spec


def test_added_removed_altered(registry: Registry, place: Place) -> None:
    place.put("a.txt", "b.txt", "c.txt")
    spec = watched(registry, place.root)
    place.put("d.txt", "e.txt")
    place.put("a.txt", data=b"longer than before")
    if "://" in place.root:
        bucket().rm_file(f"{place.root}/b.txt")
    else:
        os.remove(f"{place.root}/b.txt")
    found = look(registry, spec)
    assert str(found) == "source s0: 2 added (d.txt, e.txt), 1 removed (b.txt), 1 altered (a.txt)"
    assert [len(found.names[change]) for change in ("added", "removed", "altered")] == [2, 1, 1]
    assert found.names["altered"][0].endswith("/a.txt")
    assert registry.drifts.last_check(spec, spec.sources[0]) == found


def test_a_few_are_named_however_many_there_are(registry: Registry, data: Path) -> None:
    spec = watched(registry, str(data))
    for i in range(5_000):
        write(data, f"n{i:04}.txt", b"new")
    found = look(registry, spec)
    assert found.added == 5_000
    assert found.names["added"] == [f"{data}/n{i:04}.txt" for i in range(NAMED)]
    assert str(found) == "source s0: 5,000 added (n0000.txt, n0001.txt, n0002.txt, ...)"


def test_a_side_table_is_part_of_its_source(registry: Registry, data: Path, tmp_path: Path) -> None:
    labels = write(tmp_path, "labels.csv", b"file,label\na.txt,x\n")
    spec = watched(registry, str(data), table={"uri": labels, "key": "file", "columns": ["label"]})
    write(tmp_path, "labels.csv", b"file,label\na.txt,another\n")
    assert str(look(registry, spec)) == "source s0: 1 altered (labels.csv)"


def test_what_has_no_tag_is_seen_to_come_and_go(registry: Registry, data: Path, tmp_path: Path) -> None:
    """A dangling link, and a side table's row that was refused: both stand in the listing, without a tag."""
    labels = write(tmp_path, "labels.csv", b"file,label\na.txt,x\na.txt,y\n")
    (data / "dangling.txt").symlink_to("nowhere")
    spec = watched(registry, str(data), table={"uri": labels, "key": "file", "columns": ["label"]})
    (data / "another.txt").symlink_to("nowhere")
    (data / "dangling.txt").unlink()
    assert str(look(registry, spec)) == "source s0: 1 added (another.txt), 1 removed (dangling.txt)"


def test_records_are_looked_at_by_their_files(registry: Registry, data: Path) -> None:
    uri = write(data, "r.jsonl", b'{"text": "one"}\n{"text": "two"}\n')
    spec = watched(registry, uri, record={"text": "text"})
    write(data, "r.jsonl", b'{"text": "one"}\n{"text": "two"}\n{"text": "three"}\n')
    assert str(look(registry, spec)) == "source s0: 1 altered (r.jsonl)"


def test_a_source_that_is_gone_or_empty_is_a_problem_and_no_version_to_follow(
    registry: Registry, data: Path
) -> None:
    spec = watched(registry, str(data))
    for path in data.iterdir():
        path.unlink()
    found = look(registry, spec)
    assert found.removed == 3
    assert found.problem == f"lists nothing any more at {data}"
    data.rmdir()
    assert str(look(registry, spec)) == f"source s0: cannot be listed any more: {data} does not exist"


def test_what_is_not_frozen_has_no_drift(registry: Registry, data: Path) -> None:
    spec = spec_of({"uri": str(data)})
    registry.register(spec)
    assert look(registry, spec) == Drift("s0")
    assert registry.drifts.last_check(spec, spec.sources[0]) is None


def test_a_state_settles_only_while_nothing_changes(registry: Registry, data: Path) -> None:
    spec = watched(registry, str(data))
    write(data, "d.txt", b"d")
    first = look(registry, spec)
    assert first.since == first.looked_at
    again = look(registry, spec)
    assert (again.state, again.since) == (first.state, first.since)
    passed = timedelta(seconds=0.000_001)
    assert again.is_settled(passed)
    assert not first.is_settled(passed)
    assert not again.is_settled(timedelta(hours=1))
    write(data, "e.txt", b"e")
    later = look(registry, spec)
    assert later.state != first.state
    assert later.since == later.looked_at
    (data / "e.txt").unlink()
    back = look(registry, spec)
    assert back.state == first.state
    assert back.since == back.looked_at, "it was in another state meanwhile"


@pytest.mark.parametrize(
    "uri", ["s3://bucket/photos", "https://127.0.0.1:1/photos", "http://host.invalid/photos/"]
)
def test_a_host_that_does_not_answer_is_one_line(
    registry: Registry, data: Path, uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {
        "ACCESS_KEY_ID": "x",
        "SECRET_ACCESS_KEY": "x",
        "ENDPOINT_URL": "http://127.0.0.1:1",
        "MAX_ATTEMPTS": "1",
    }.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    spec = spec_of({"uri": uri}, {"uri": str(data)})
    found, fine = freeze(registry, spec)
    assert found.startswith("source s0 cannot be listed: ")
    assert "\n" not in found
    assert len(found) < 400
    assert fine == "", "only what depends on it is held up"
    assert not registry.listings.is_frozen(spec, spec.sources[0]), "it is tried again by the next run"
