"""A version is frozen only where each of its sources lists something."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from mm_embed_kernels.errors import UserError
from mm_resources.registry.registry import Registry
from mm_resources.registry.source_look import look_at_sources
from mm_resources.registry.unregistration import unregister
from tests.resources.specs import freeze, list_samples, spec_of


def test_sources_that_list_something(registry: Registry, data: Path) -> None:
    (data / "notes.jsonl").write_text('{"text": "a"}\n')
    spec = spec_of(
        {"uri": str(data)},
        {"uri": f"{data}/*.txt"},
        {"uri": f"{data}/notes.jsonl", "record": {"text": "text"}},
        {"uri": f"{data}/*.nothing", "allow_empty": True},
    )
    assert list(look_at_sources(registry, spec)) == []


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("nosuch/*.txt", "source s0 cannot be listed: {data}/nosuch does not exist; the nearest path that exists is {data}"),
        ("x/y/z", "source s0 cannot be listed: {data}/x/y/z does not exist; the nearest path that exists is {data}"),
        ("*.nothing", "source s0 lists nothing at {data}/*.nothing; mend the path or set allow_empty: true"),
    ],
)  # fmt: skip
def test_a_path_that_leads_nowhere(registry: Registry, data: Path, path: str, line: str) -> None:
    with pytest.raises(UserError) as caught:
        list(look_at_sources(registry, spec_of({"uri": f"{data}/{path}"})))
    assert str(caught.value) == line.format(data=data)


def test_members_of_what_may_be_no_archive(registry: Registry, data: Path) -> None:
    spec = spec_of({"uri": f"{data}/*.t*", "members": "*.txt"})
    with pytest.raises(UserError, match=r"source s0: `members` .*\*\.t\* does not end in \.tar"):
        list(look_at_sources(registry, spec))


def test_side_tables(registry: Registry, data: Path) -> None:
    def look(rows: str, columns: list[str]) -> list[str]:
        (data / "t.csv").write_text(rows)
        table = {"uri": f"{data}/t.csv", "key": "file", "columns": columns}
        return list(look_at_sources(registry, spec_of({"uri": f"{data}/*.txt", "table": table})))

    assert look("file,label\na.txt,x\n", ["label"]) == []
    (note,) = look("file,label\nz.txt,x\n", ["label"])
    assert note == (
        f"source s0: no row of its side table {data}/t.csv names a file, such as 'a.txt', in the column 'file'"
    )
    with pytest.raises(UserError, match=r"has no column 'group'; it has: file, label"):
        look("file,label\na.txt,x\n", ["group"])
    table = {"uri": f"{data}/sub/no.csv", "key": "file", "columns": ["label"]}
    with pytest.raises(UserError, match=rf"no\.csv.*; the nearest path that exists is {data}$"):
        list(look_at_sources(registry, spec_of({"uri": f"{data}/*.txt", "table": table})))


def test_samples_that_match_no_source_are_counted_and_named(registry: Registry, data: Path) -> None:
    (data / "sub").mkdir()
    for name in ("d.md", "sub/e.TXT", "f.csv", ".g.txt", "sub/h.jpg"):
        (data / name).write_text("x")
    (note,) = look_at_sources(registry, spec_of({"uri": f"{data}/*.txt"}))
    assert note == (
        f"2 files look like text samples and match no source: {data}/d.md, {data}/sub/e.TXT; "
        "widen a glob, or name them in `exclude`"
    )
    for sources in (
        [{"uri": f"{data}/*.txt", "exclude": ["*.md", "sub"]}],
        [{"uri": f"{data}/*.txt"}, {"uri": f"{data}/*.md"}, {"uri": f"{data}/sub/*.txt"}],
        [{"uri": str(data), "allow_empty": True}],
    ):
        assert list(look_at_sources(registry, spec_of(*sources))) == []


def test_a_version_that_published_nothing_is_unregistered(registry: Registry, data: Path) -> None:
    spec, other = spec_of({"uri": f"{data}/*.txt"}), spec_of({"uri": f"{data}/a.txt"})
    assert freeze(registry, spec) == [""]
    with pytest.raises(UserError, match=r"stays frozen; .*`mm unregister birds@v1` first"):
        registry.register(other)
    child = spec_of({"uri": f"{data}/*.txt"}, version="v2", parent="v1")
    registry.register(child)
    with pytest.raises(UserError, match=r"birds@v2 follows birds@v1"):
        unregister(registry, "birds@v1")
    assert [cell.path for cell in unregister(registry, "birds@v2")] == ["birds/v2/text"]
    assert [cell.path for cell in unregister(registry, "birds@v1")] == ["birds/v1/text"]
    assert registry.datasets() == []
    assert freeze(registry, other) == [""]
    assert [row["key"] for row in list_samples(registry, other)] == ["a.txt"]
    with pytest.raises(UserError, match=r"birds@v9 is not registered; registered are: birds@v1"):
        unregister(registry, "birds@v9")


def test_a_service_that_does_not_answer_is_a_note(
    registry: Registry, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("ACCESS_KEY_ID", "x"), ("SECRET_ACCESS_KEY", "x"), ("MAX_ATTEMPTS", "1")):
        monkeypatch.setenv(f"AWS_{name}", value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    (note,) = look_at_sources(registry, spec_of({"uri": "s3://bucket/notes"}))
    assert note.startswith("source s0 does not answer now: ")


def test_a_look_reads_no_archive_and_no_side_table_to_its_end(registry: Registry, data: Path) -> None:
    """What stands behind the first sample is damaged, which costs only him who reads so far."""
    many = 2_000
    with tarfile.open(data / "shard.tar", "w") as archive:
        for name in ("a.txt", "b.txt"):
            info = tarfile.TarInfo(name)
            info.size = 3
            archive.addfile(info, io.BytesIO(b"abc"))
    whole = (data / "shard.tar").read_bytes()
    (data / "shard.tar").write_bytes(whole[:512] + b"abc" + bytes(509) + b"\xff" * 700)
    (data / "one.wav").write_bytes(b"")
    (data / "table.csv").write_text(
        "file,label\none.wav,dog\n" + "two.wav,cat\n" * many + "\xff\n" * many, "latin-1"
    )
    spec = spec_of(
        {"uri": f"{data}/shard.tar"},
        {"uri": f"{data}/*.wav", "table": {"uri": f"{data}/table.csv", "key": "file", "columns": ["label"]}},
    )
    for source in spec.sources:
        first, _ = registry.listings.look(spec, source)
        assert first is not None
        assert (first.error, first.content_hash) == (None, "")
    assert first.label == "dog"


def test_a_side_table_of_other_files_first_is_no_mistake(registry: Registry, data: Path) -> None:
    """Its first rows say nothing of those behind; rows that end as a file's path belong to it."""
    (data / "deep").mkdir()
    (data / "deep" / "one.wav").write_bytes(b"x")
    for rows in (
        "".join(f"other{i}.wav,dog\n" for i in range(2_000)) + "one.wav,cat\n",
        "C:\\elsewhere\\deep\\one.wav,cat\n",
        "/elsewhere/deep/one.wav,cat\n",
    ):
        (data / "table.csv").write_text("file,label\n" + rows)
        table = {"uri": f"{data}/table.csv", "key": "file", "columns": ["label"]}
        spec = spec_of({"uri": f"{data}/**/*.wav", "table": table})
        assert [note for note in look_at_sources(registry, spec) if "no row" in note] == [], rows[:60]


def test_a_look_at_an_archive_that_is_none_names_it(registry: Registry, data: Path) -> None:
    (data / "shard.tar").write_bytes(b"\xff" * 2_000)
    spec = spec_of({"uri": f"{data}/shard.tar"})
    first, _ = registry.listings.look(spec, spec.sources[0])
    assert first is not None
    assert first.error is not None
    (data / "empty.tar").write_bytes(bytes(10_240))
    spec = spec_of({"uri": f"{data}/empty.tar"})
    with pytest.raises(UserError, match="lists nothing at"):
        list(look_at_sources(registry, spec))
