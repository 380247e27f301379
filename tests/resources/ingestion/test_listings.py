"""Frozen listings of a version's sources."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from mm_embed_kernels.identity import entity_id, sample_id
from mm_resources.registry.registry import Registry
from mm_resources.sources import Unmatched
from tests.resources.specs import freeze, list_samples, spec_of, write


def test_listing(registry: Registry, data: Path) -> None:
    spec = spec_of({"uri": f"{data}/*.txt"})
    assert freeze(registry, spec) == [""]
    rows = {row["key"]: row for row in list_samples(registry, spec)}
    assert set(rows) == {"a.txt", "b.txt", "c.txt"}
    row = rows["a.txt"]
    assert row["sample_id"] == row["entity_id"] == sample_id("birds", "s0", "a.txt")
    assert (row["source"], row["source_uri"], row["size"], row["modality"]) == (
        "s0",
        f"{data}/a.txt",
        6,
        "text",
    )
    assert registry.listings.listing(spec, "image").read_all().num_rows == 0


def test_a_frozen_listing_does_not_follow_its_source(registry: Registry, data: Path) -> None:
    spec = spec_of({"uri": str(data)})
    freeze(registry, spec)
    before = list_samples(registry, spec)
    (data / "new.txt").write_text("new")
    (data / "a.txt").write_text("changed and longer")
    (data / "b.txt").unlink()
    assert freeze(registry, spec) == [""]
    assert list_samples(registry, spec) == before
    assert registry.listings.preview(spec, "text").read_all().to_pylist() == before
    later = spec_of({"uri": str(data)}, version="v2")
    freeze(registry, later)
    after = {row["key"]: row for row in list_samples(registry, later)}
    assert set(after) == {"a.txt", "c.txt", "new.txt"}
    same = {row["key"]: row for row in before}
    assert after["c.txt"]["sample_id"] == same["c.txt"]["sample_id"]
    assert after["c.txt"]["tag"] == same["c.txt"]["tag"]
    assert after["a.txt"]["tag"] != same["a.txt"]["tag"]


def test_a_frozen_listing_outlives_its_source(registry: Registry, data: Path) -> None:
    spec = spec_of({"uri": str(data)})
    freeze(registry, spec)
    for path in data.iterdir():
        path.unlink()
    data.rmdir()
    assert freeze(registry, spec) == [""]
    assert len(list_samples(registry, spec)) == 3


@pytest.mark.parametrize("round_", range(3))
def test_many_freezes_at_once_agree(registry: Registry, data: Path, round_: int) -> None:
    """The cells of one version freeze its sources side by side; the first listing stays, for all of them."""
    spec = spec_of({"uri": str(data)})
    registry.register(spec)
    barrier = threading.Barrier(6)

    def freeze(i: int) -> tuple[str, list[str]]:
        barrier.wait()
        (data / f"new-{i}.txt").write_text("the source changes meanwhile")
        message = registry.listings.freeze(spec, spec.sources[0])
        return message, registry.listings.listing(spec, "text").read_all()["key"].to_pylist()

    with ThreadPoolExecutor(6) as pool:
        seen = list(pool.map(freeze, range(6)))
    assert {message for message, _ in seen} == {""}
    assert len({tuple(keys) for _, keys in seen}) == 1


def test_preview_freezes_nothing(registry: Registry, data: Path) -> None:
    spec = spec_of({"uri": str(data)})
    assert len(registry.listings.preview(spec, "text").read_all()) == 3
    (data / "new.txt").write_text("new")
    assert len(registry.listings.preview(spec, "text").read_all()) == 4
    assert registry.listings.listing(spec, "text").read_all().num_rows == 0


def test_an_empty_source_is_named_and_may_be_filled_later(registry: Registry, data: Path) -> None:
    spec = spec_of({"uri": f"{data}/*.md"}, {"uri": f"{data}/*.txt"})
    message, fine = freeze(registry, spec)
    assert message == f"source s0 lists nothing at {data}/*.md; mend the path or set allow_empty: true"
    assert fine == ""
    assert len(list_samples(registry, spec)) == 3
    (data / "d.md").write_text("at last")
    assert freeze(registry, spec) == ["", ""]
    assert len(list_samples(registry, spec)) == 4


def test_allow_empty(registry: Registry, data: Path) -> None:
    spec = spec_of({"uri": f"{data}/*.md", "allow_empty": True})
    assert freeze(registry, spec) == [""]
    assert list_samples(registry, spec) == []
    (data / "d.md").write_text("too late")
    assert freeze(registry, spec) == [""]
    assert list_samples(registry, spec) == []


def test_a_missing_root_is_named(registry: Registry, data: Path) -> None:
    spec = spec_of({"uri": f"{data}/nowhere"}, {"uri": "memory://nowhere-at-all"})
    here, there = freeze(registry, spec)
    assert here == f"source s0 cannot be listed: {data}/nowhere does not exist"
    assert there.startswith("source s1 cannot be listed: ")
    assert "nowhere-at-all" in there


def clear(line: str) -> bool:
    return (
        line.startswith("source s0 cannot be listed: ")
        and "\n" not in line
        and "Traceback" not in line
        and len(line) < 400
    )


def break_parquet(folder: Path) -> None:
    parquet.write_table(pa.table({"text": ["a"]}), folder / "1.parquet")
    write(folder, "2.parquet", b"not parquet")
    parquet.write_table(pa.table({"text": ["b"]}), folder / "3.parquet")


def break_csv(folder: Path) -> None:
    write(folder, "1.csv", b"text\na\n")
    write(folder, "2.csv", b"text,label\rone,1\r")
    write(folder, "3.csv", b"text\nb\n")


@pytest.mark.parametrize(
    ("make", "pattern"), [(break_parquet, "*.parquet"), (break_csv, "*.csv")], ids=["parquet", "csv"]
)
def test_a_file_of_records_that_cannot_be_read_costs_itself(
    registry: Registry, data: Path, make: Callable[[Path], None], pattern: str
) -> None:
    make(data)
    spec = spec_of({"uri": f"{data}/{pattern}", "record": {"text": "text"}})
    assert freeze(registry, spec) == [""]
    found = [
        (row["source_uri"].rsplit("/", 1)[-1][0], row["error_class"]) for row in list_samples(registry, spec)
    ]
    assert sorted(found) == [("1", None), ("2", "bad_table"), ("3", None)]
    (bad,) = [row["message"] for row in list_samples(registry, spec) if row["error_class"]]
    assert "cannot be read as" in bad
    assert "\n" not in bad


def test_a_source_that_breaks_on_the_way_is_one_clear_line(registry: Registry) -> None:
    """A fault of the system, not of the data: it comes up inside Lance's writer, must not bring its traceback along,
    and freezes nothing, since the source may be whole when it is listed again."""
    spec = spec_of({"uri": "/proc/self/mem", "record": {"text": "text"}, "format": "jsonl"})
    (line,) = freeze(registry, spec)
    assert clear(line), line
    assert "Input/output error" in line
    assert list_samples(registry, spec) == []


RECORD = {"text": "text", "id": "id", "label": "label", "link": "link", "group": "group"}


def test_records_links_and_user_columns(registry: Registry, data: Path) -> None:
    rows = [
        {"id": "1", "text": "a", "link": "owl", "group": "g", "label": "x", "stars": 5, "seen": "2024-01-02"},
        {"id": "2", "text": "b", "link": "owl", "stars": "many"},
        {"id": "3", "text": "c"},
    ]
    uri = write(
        data, "r.jsonl", "\n".join(json.dumps(row) for row in [*rows, {"id": "1", "text": "d"}]).encode()
    )
    spec = spec_of(
        {"uri": uri, "record": RECORD}, schema={"stars": "int", "seen": "timestamp", "label": "string"}
    )
    freeze(registry, spec)
    found = {row["key"]: row for row in list_samples(registry, spec)}
    assert found["1"]["entity_id"] == found["2"]["entity_id"] == entity_id("birds", "owl")
    assert found["3"]["entity_id"] == found["3"]["sample_id"]
    assert (found["1"]["group"], found["1"]["label"], found["1"]["user__stars"]) == ("g", "x", 5)
    assert found["1"]["user__seen"].year == 2024
    assert (found["2"]["error_class"], found["2"]["user__stars"]) == ("schema_mismatch", None)
    assert found["1#2"]["error_class"] == "duplicate_key"
    assert registry.listings.contract(spec).digest[-2:] == ("user__stars", "user__seen")


def test_a_link_to_a_sample_joins_it(registry: Registry, data: Path) -> None:
    """By key, else by a file name that is unique; what it does not find is an entity of its own."""
    for folder, names in {"x": "ab", "y": "a"}.items():
        (data / folder).mkdir()
        for name in names:
            (data / folder / f"{name}.bin").write_bytes(b"photo " + folder.encode() + name.encode())
    links = {"1": "x/a.bin", "2": "b.bin", "3": "a.bin", "4": "owl", "5": "owl"}
    uri = write(
        data,
        "r.jsonl",
        b"".join(
            json.dumps({"id": key, "text": "t" + key, "link": link}).encode() + b"\n"
            for key, link in links.items()
        ),
    )
    spec = spec_of({"uri": uri, "record": RECORD}, {"uri": f"{data}/**/*.bin", "modality": "image"})
    assert freeze(registry, spec) == ["", ""]
    photos = {row["key"]: row for row in list_samples(registry, spec, "image")}
    texts = {row["key"]: row for row in list_samples(registry, spec)}
    assert all(row["entity_id"] == row["sample_id"] for row in photos.values())
    assert texts["1"]["entity_id"] == photos["x/a.bin"]["sample_id"]
    assert texts["2"]["entity_id"] == photos["x/b.bin"]["sample_id"]
    assert texts["3"]["entity_id"] == entity_id("birds", "a.bin")  # two files have that name
    assert texts["4"]["entity_id"] == texts["5"]["entity_id"] == entity_id("birds", "owl")


@pytest.mark.parametrize(
    "line",
    [
        b'{"text": "bad", "label": "\\ud800"}',
        b'{"text": "bad", "id": "\\ud800"}',
        b'{"text": "bad", "link": "\\ud800"}',
        b'{"text": "bad", "note": "\\ud800"}',
        b'{"\\ud800": "bad"}',
        b'{"text": "bad", "stars": 99999999999999999999}',
        b'{"text": "bad", "stars": 1e400}',
        b'{"text": "bad", "label": {"nested": [1]}}',
    ],
    ids=[
        "label",
        "id",
        "link",
        "user column",
        "field name",
        "large number",
        "infinite number",
        "nested label",
    ],
)
def test_one_odd_record_does_not_cost_its_source(registry: Registry, data: Path, line: bytes) -> None:
    uri = write(data, "r.jsonl", b'{"text": "good", "id": "g"}\n' + line + b"\n")
    spec = spec_of({"uri": uri, "record": RECORD}, schema={"stars": "int", "note": "string"})
    assert freeze(registry, spec) == [""]
    rows = list_samples(registry, spec)
    assert len(rows) == 2
    assert [row["error_class"] for row in rows if row["key"] == "g"] == [None]


def test_sample_ids_are_unique(registry: Registry, data: Path) -> None:
    uri = write(
        data, "r.jsonl", b'{"text": "a", "id": "x"}\n{"text": "b", "id": "x"}\n{"text": "c", "id": "x#2"}\n'
    )
    spec = spec_of({"uri": uri, "record": RECORD}, {"uri": f"{data}/*.txt"}, {"uri": f"{data}/a.txt"})
    freeze(registry, spec)
    rows = list_samples(registry, spec)
    assert len({row["sample_id"] for row in rows}) == len(rows) == 7


def test_auto_sources_route_by_content(registry: Registry, data: Path) -> None:
    from io import BytesIO

    from PIL import Image

    stream = BytesIO()
    Image.new("RGB", (9, 9), "red").save(stream, "PNG")
    write(data, "picture.txt", stream.getvalue())
    write(data, "archive.zip", b"PK\x03\x04" + bytes(40))
    (data / "broken.txt").symlink_to("nowhere")
    spec = spec_of({"uri": str(data), "modality": "auto"})
    freeze(registry, spec)
    cells = {
        name: {row["key"]: row["error_class"] for row in list_samples(registry, spec, name)}
        for name in ("audio", "image", "text")
    }
    # What nothing claims goes with its neighbours, and makes no cell of its own; its probe names it there.
    assert cells["text"] == {
        "a.txt": None,
        "archive.zip": None,
        "b.txt": None,
        "broken.txt": "not_found",
        "c.txt": None,
    }
    assert cells["audio"] == {}
    assert cells["image"] == {"picture.txt": None}


def test_an_auto_source_that_nothing_claims(registry: Registry, tmp_path: Path) -> None:
    folder = tmp_path / "junk"
    folder.mkdir()
    for name in "ab":
        write(folder, f"{name}.zip", b"PK\x03\x04" + bytes(40))
    spec = spec_of({"uri": str(folder), "modality": "auto"})
    assert freeze(registry, spec) == [""]
    assert len(list_samples(registry, spec, "audio")) == 2


def test_long_listings(registry: Registry, data: Path) -> None:
    count = 10_001
    uri = write(data, "r.jsonl", b"".join(b'{"text": "t%d", "id": "%d"}\n' % (i, i) for i in range(count)))
    spec = spec_of({"uri": uri, "record": RECORD})
    freeze(registry, spec)
    rows = registry.listings.listing(spec, "text").read_all()
    assert len(set(rows["sample_id"].to_pylist())) == count


def test_what_a_side_table_and_files_lack_of_each_other(registry: Registry, data: Path) -> None:
    (data / "meta.jsonl").write_text(
        "".join(json.dumps({"file": name, "label": "x"}) + "\n" for name in ["a.txt", "gone.txt", "lost.txt"])
    )
    table = {"uri": str(data / "meta.jsonl"), "key": "file", "columns": ["label"]}
    spec = spec_of({"uri": f"{data}/*.txt", "table": table})
    assert freeze(registry, spec) == [""]
    found = registry.listings.frozen_unmatched(spec, spec.sources[0])
    assert found == {
        "rows without a file": Unmatched(2, ["gone.txt", "lost.txt"]),
        "files without a row": Unmatched(2, ["b.txt", "c.txt"]),
    }
    assert len(registry.listings.frozen_side_table(spec, spec.sources[0])) == 1
    assert registry.drifts.check(spec, spec.sources[0]).state
    assert not registry.drifts.check(spec, spec.sources[0]).has_changed


def test_links_that_name_nothing(registry: Registry, data: Path) -> None:
    """a.txt is a sample; `walk` is shared, so that it says something; two links say nothing."""
    links = ["a.txt", "walk", "walk", "nosuch.txt", "b.text", None]
    rows = [{"id": str(i), "text": f"t{i}", "link": link} for i, link in enumerate(links)]
    (data / "notes.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    record = {"id": "id", "text": "text", "link": "link"}
    spec = spec_of({"uri": f"{data}/*.txt"}, {"uri": f"{data}/notes.jsonl", "record": record})
    assert freeze(registry, spec) == ["", ""]
    assert registry.listings.dangling_links(spec, "text") == (Unmatched(2, ["b.text", "nosuch.txt"]), 5)
    assert registry.listings.dangling_links(spec, "image") == (Unmatched(0, []), 0)


def test_a_linked_folder_is_a_failure_of_one_source(registry: Registry, data: Path) -> None:
    (data / "linked").symlink_to(data)
    (data / "1.jpg").write_bytes(b"x")
    spec = spec_of(
        {"uri": f"{data}/**/*.jpg", "modality": "image"},
        {"uri": f"{data}/**/*.txt"},
        {"uri": f"{data}/*.txt", "name": "flat"},
        {"uri": f"{data}/linked/*.txt", "name": "inside"},
    )
    assert freeze(registry, spec) == [""] * 4
    failed = [
        row for kind in ("image", "text") for row in list_samples(registry, spec, kind) if row["message"]
    ]
    assert [(row["source"], row["key"], row["error_class"]) for row in failed] == [
        ("s0", "linked", "linked_folder")
    ]
    for source in spec.sources:
        assert not registry.drifts.check(spec, source).has_changed


def test_a_link_to_nothing_has_the_modality_of_its_name(registry: Registry, data: Path) -> None:
    for name in ("gone.jpg", "gone.wav"):
        (data / name).symlink_to(data / "nowhere")
    spec = spec_of({"uri": str(data), "modality": "auto"})
    assert freeze(registry, spec) == [""]
    kinds = {
        row["key"]: kind
        for kind in ("image", "audio", "text")
        for row in list_samples(registry, spec, kind)
        if row["error_class"] == "not_found"
    }
    assert kinds == {"gone.jpg": "image", "gone.wav": "audio"}
