from __future__ import annotations

import os
import zipfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import pyarrow as pa
import pytest

from mm_embed_kernels.errors import SampleError, UserError
from mm_embed_kernels.spec.source_spec import SourceSpec
from mm_resources.sources import Listed, Source, open_source, sources
from mm_resources.sources.base import cast_value
from mm_resources.sources.globs import glob_regex, glob_root
from mm_resources.storage.store import LARGE_BYTES
from tests.resources.places import Place
from tests.s3 import BUCKET, S3

TREE = ["a.txt", "b.md", "deep/c.txt", "deep/d.TXT", "deep/er/e.txt", "deep/er/f.md"]


def read(source: Source, item: Listed) -> bytes:
    found = source.fetch(item.uri, item.locator)
    return found if isinstance(found, bytes) else found.read()


@pytest.mark.parametrize(
    ("uri", "keys"),
    [
        ("", TREE),
        ("deep", ["c.txt", "d.TXT", "er/e.txt", "er/f.md"]),
        ("*", ["a.txt", "b.md"]),
        ("*.txt", ["a.txt"]),
        ("?.md", ["b.md"]),
        ("*/*.txt", ["deep/c.txt", "deep/d.TXT"]),
        ("**/*.txt", ["a.txt", "deep/c.txt", "deep/d.TXT", "deep/er/e.txt"]),
        ("deep/**", ["c.txt", "d.TXT", "er/e.txt", "er/f.md"]),
        ("**/*.{MD,TXT}", TREE),
        ("{b,deep/d}.TXT", ["deep/d.TXT"]),
        ("deep/{c,d}.txt", ["c.txt", "d.TXT"]),
        ("{deep/er,.}/*.md", ["deep/er/f.md"]),
        ("**/[ce].txt", ["deep/c.txt", "deep/er/e.txt"]),
        ("*.jpg", []),
        ("a.txt", ["a.txt"]),
        ("deep/er/e.txt", ["e.txt"]),
    ],
)
def test_globs(place: Place, uri: str, keys: list[str]) -> None:
    place.put(*TREE)
    found = place.samples(uri)
    assert sorted(found) == sorted(keys)
    source = place.source(uri)
    for key, item in found.items():
        assert item.error is None
        assert read(source, item).decode().endswith(key)
        assert item.size == len(read(source, item))
        assert item.tag


@pytest.mark.parametrize(
    ("exclude", "keys"),
    [
        (["*.md"], ["a.txt", "deep/c.txt", "deep/d.TXT", "deep/er/e.txt"]),
        (["er"], ["a.txt", "b.md", "deep/c.txt", "deep/d.TXT"]),
        (["deep/er/"], ["a.txt", "b.md", "deep/c.txt", "deep/d.TXT"]),
        (["deep/*.txt"], ["a.txt", "b.md", "deep/er/e.txt", "deep/er/f.md"]),
        (["[ab].*", "deep/**"], []),
    ],
)
def test_excluded_files_and_folders(place: Place, exclude: list[str], keys: list[str]) -> None:
    place.put(*TREE)
    assert sorted(place.samples("", exclude=exclude)) == keys


def test_excluded_tables_and_members(disk: Place) -> None:
    for name in ("a.jsonl", "old/b.jsonl"):
        disk.put(name, data=f'{{"text": "from {name}"}}'.encode())
    found = disk.samples("**/*.jsonl", record={"text": "text"}, exclude=["old"], modality="text")
    assert [item.uri.rsplit("/", 1)[-1] for item in found.values()] == ["a.jsonl"]
    with zipfile.ZipFile(f"{disk.root}/x.ZIP", "w") as archive:
        for name in ("1.JPG", "thumbs/2.jpg", "3.jpg"):
            archive.writestr(name, name)
    assert list(disk.samples("*.zip", members="**/*.jpg", exclude=["thumbs"])) == [
        "x.ZIP/1.JPG",
        "x.ZIP/3.jpg",
    ]
    assert list(disk.samples("x.ZIP", exclude=["*.jpg"])) == []


def test_listing_order_is_stable(place: Place) -> None:
    place.put(*reversed(TREE))
    assert list(place.samples()) == list(place.samples("**"))
    assert list(place.samples("deep/er")) == ["e.txt", "f.md"]


def test_keys_do_not_depend_on_where_the_data_lies(tmp_path: Path, s3: S3) -> None:
    places = [
        Place(str(tmp_path / "one")),
        Place(str(tmp_path / "two" / "deeper")),
        Place(f"s3://{BUCKET}/{uuid4().hex}"),
    ]
    for each in places:
        each.put(*TREE)
    assert sorted(places[0].samples()) == sorted(places[1].samples()) == sorted(places[2].samples())


def test_missing_root(place: Place) -> None:
    place.put("a.txt")
    for uri in ("nowhere", "nowhere/*.txt", "a.text"):
        if "://" in place.root:
            # A bucket knows no folders: there is nothing, which blocks a cell as an error does.
            assert place.samples(uri) == {}
            continue
        with pytest.raises((OSError, UserError), match=r"nowhere|a\.text"):
            list(place.source(uri).list())


def test_gone_since_the_listing(place: Place, tmp_path: Path) -> None:
    source = place.source()
    with pytest.raises(SampleError, match="was listed but is gone") as caught:
        source.fetch(f"{place.root}/gone.txt", "")
    assert (caught.value.error_class, caught.value.retryable) == ("not_found", True)


def test_tag_changes_with_the_file(disk: Place) -> None:
    disk.put("a.txt", "b.txt")
    before = disk.samples()
    os.utime(f"{disk.root}/a.txt", ns=(1, 1_600_000_000_000_000_001))
    after = disk.samples()
    assert before["a.txt"].tag != after["a.txt"].tag
    assert before["b.txt"].tag == after["b.txt"].tag
    assert after["a.txt"].modified_at == datetime.fromtimestamp(1_600_000_000, UTC)


def test_a_folder_of_more_names_than_are_sorted_in_memory(
    disk: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mm_resources.sources.sorted_folder

    names = [f"{i * 7919 % 101:03d}\n.txt" for i in range(101)]
    disk.put(*names, "deep/1.txt", "deep/2.txt")
    Path(disk.root, "050-link.txt").symlink_to("000\n.txt")
    Path(os.fsdecode(os.fsencode(disk.root) + b"/\xff.txt")).write_bytes(b"odd")
    whole = list(disk.source().list())
    monkeypatch.setattr(mm_resources.sources.sorted_folder, "_RUN", 10)
    monkeypatch.setattr(mm_resources.sources.sorted_folder, "_BLOCK", 3)
    assert list(disk.source().list()) == whole
    assert len(whole) == 105
    assert [item.key for item in whole if "/" not in item.key][:101] == sorted([*names, "050-link.txt"])[:101]


def test_hidden_files_are_left_out_of_a_folder(disk: Place) -> None:
    disk.put("a.txt", ".DS_Store", "deep/.hidden", "deep/b.txt")
    assert sorted(disk.samples()) == ["a.txt", "deep/b.txt"]


def test_a_large_file_comes_as_a_stream(place: Place) -> None:
    place.put("large.txt", data=b"x" * (LARGE_BYTES + 1))
    place.put("small.txt", data=b"x" * LARGE_BYTES)
    source, found = place.source(), place.samples()
    small = source.fetch(found["small.txt"].uri, found["small.txt"].locator)
    assert isinstance(small, bytes)
    large = source.fetch(found["large.txt"].uri, found["large.txt"].locator)
    assert not isinstance(large, bytes)
    with large:
        assert large.read(10) == b"x" * 10
        assert len(large.read()) == LARGE_BYTES - 9


def test_a_file_system_that_tells_no_size_of_what_it_opens() -> None:
    """As sftp's."""
    import io

    import fsspec
    from fsspec.implementations.memory import MemoryFileSystem

    class Plain(MemoryFileSystem):
        protocol = "plain"
        store: dict[str, Any] = {}
        pseudo_dirs = [""]

        def _open(self, path: str, mode: str = "rb", **options: Any) -> Any:
            found = super()._open(path, mode, **options)
            return io.BytesIO(found.getvalue()) if mode == "rb" else found

        @classmethod
        def _strip_protocol(cls, path: str) -> str:
            return super()._strip_protocol(path.replace("plain://", "memory://"))

    fsspec.register_implementation("plain", Plain, clobber=True)
    Plain().pipe_file("/host/small.txt", b"small")
    Plain().pipe_file("/host/large.txt", b"x" * (LARGE_BYTES + 1))
    source = open_source(SourceSpec(name="s", modality="text", uri="plain://host"), {})
    large, small = (source.fetch(item.uri, item.locator) for item in source.list())
    assert small == b"small"
    assert not isinstance(large, bytes)
    assert len(large.read()) == LARGE_BYTES + 1


# -- what may lie in a folder on disk


def test_links(disk: Place, tmp_path: Path) -> None:
    disk.put("a.txt", "deep/b.txt")
    (tmp_path / "secret.txt").write_text("secret")
    root = Path(disk.root)
    (root / "inside.txt").symlink_to(root / "deep" / "b.txt")
    (root / "outside.txt").symlink_to(tmp_path / "secret.txt")
    (tmp_path / "data-of-others").mkdir()
    (tmp_path / "data-of-others" / "secret.txt").write_text("secret")
    (root / "beside.txt").symlink_to(tmp_path / "data-of-others" / "secret.txt")
    (root / "deep" / "up.txt").symlink_to("../../secret.txt")
    (root / "twice.txt").symlink_to("outside.txt")
    (root / "broken.txt").symlink_to("nowhere")
    (root / "loop.txt").symlink_to("loop.txt")
    (root / "folder").symlink_to("deep")
    (root / "outer").symlink_to(tmp_path)
    found = disk.samples()
    assert {key: item.error.error_class for key, item in found.items() if item.error} == {
        "outside.txt": "path_escape",
        "beside.txt": "path_escape",
        "deep/up.txt": "path_escape",
        "twice.txt": "path_escape",
        "outer": "path_escape",
        "broken.txt": "not_found",
        "loop.txt": "not_found",
        "folder": "linked_folder",
    }
    assert {key for key, item in found.items() if not item.error} == {"a.txt", "deep/b.txt", "inside.txt"}
    assert read(disk.source(), found["inside.txt"]) == b"deep/b.txt"
    assert all("secret.txt" not in (item.error.message if item.error else "") for item in found.values())


def test_a_root_behind_a_link(disk: Place, tmp_path: Path) -> None:
    """The root may be a link; what lies in it does not escape."""
    disk.put("a.txt")
    Path(disk.root, "b.txt").symlink_to("a.txt")
    (tmp_path / "alias").symlink_to(disk.root)
    source = open_source(SourceSpec(name="s", modality="text", uri=f"{tmp_path}/alias"), {})
    assert [(item.key, item.error) for item in source.list()] == [("a.txt", None), ("b.txt", None)]
    one = open_source(SourceSpec(name="s", modality="text", uri=f"{tmp_path}/alias/b.txt"), {})
    assert [(item.key, item.error) for item in one.list()] == [("b.txt", None)]


def test_pipes_and_sockets_are_not_opened(disk: Place) -> None:
    import socket

    disk.put("a.txt")
    os.mkfifo(f"{disk.root}/pipe")
    with socket.socket(socket.AF_UNIX) as opened:
        here = os.open(disk.root, os.O_RDONLY)
        try:  # a socket's path is short; the folder's own may not be
            opened.bind(f"/proc/self/fd/{here}/socket")
        finally:
            os.close(here)
        found = disk.samples()
    assert {key: item.error.error_class for key, item in found.items() if item.error} == {
        "pipe": "not_a_file",
        "socket": "not_a_file",
    }


def test_names_that_are_not_utf8(disk: Place) -> None:
    disk.put("good.txt")
    raw = os.fsencode(disk.root) + b"/caf\xe9"
    os.mkdir(raw)
    Path(os.fsdecode(raw + b"/\xff\n.txt")).write_bytes(b"odd")
    found = disk.samples()
    (odd,) = [item for key, item in found.items() if key != "good.txt"]
    odd.key.encode()
    odd.uri.encode()
    assert odd.error is None
    assert odd.key.startswith("caf\\xe9/")
    assert read(disk.source(), odd) == b"odd"
    assert found["good.txt"].locator == ""
    assert len(disk.samples("caf*/*.txt")) == 1


def test_names_that_look_alike_have_keys_of_their_own(disk: Place) -> None:
    """One name holds the byte FF, the other the four characters that stand for it."""
    for name in (b"a\xff.txt", b"a\\xff.txt"):
        Path(os.fsdecode(os.fsencode(disk.root) + b"/" + name)).write_bytes(name)
    source = disk.source()
    found = list(source.list())
    assert {read(source, item) for item in found} == {b"a\xff.txt", b"a\\xff.txt"}
    assert len({item.key for item in found}) == 2


@pytest.mark.parametrize(
    "name",
    [
        "white space.txt",
        "per%20cent.txt",
        "quo'te\".txt",
        "ünï.txt",
        "#hash.txt",
        "new\nline.txt",
        "-dash.txt",
    ],
)
def test_awkward_names(disk: Place, name: str) -> None:
    disk.put(name)
    found = disk.samples()
    assert list(found) == [name]
    assert read(disk.source(), found[name]) == name.encode()


def test_a_folder_whose_name_is_a_pattern(disk: Place) -> None:
    """The spec's folder is taken as it is called; only what the user wrote is a glob."""
    from mm_embed_kernels.spec.dataset_spec import parse_spec

    disk.put("set [1] {a,b}*/in/1.txt", "set [1] {a,b}*/in/2.md", "set 1 a/in/3.txt")
    text = "{name: a, version: v1, sources: [{name: s, modality: text, uri: 'in/*.txt'}, {name: t, modality: text, uri: in}]}"
    spec = parse_spec(text, "f", f"{disk.root}/set [1] {{a,b}}*")
    assert [[item.key for item in open_source(source, {}).list()] for source in spec.sources] == [
        ["1.txt"],
        ["1.txt", "2.md"],
    ]
    assert sorted(disk.samples("set [1] {a,b}*")) == ["in/1.txt", "in/2.md"], (
        "a path that exists is no pattern"
    )


@pytest.mark.parametrize("pattern", ["data", "data/**/*", "data/**/*.txt"])
def test_hidden_names_are_left_out_everywhere(place: Place, pattern: str) -> None:
    place.put("data/1.txt", "data/.2.txt", "data/.git/3.txt", "data/a/.b/4.txt", "data/a/5.txt")
    assert sorted(place.samples(pattern)) == ["1.txt", "a/5.txt"]
    assert sorted(place.samples("data/.git/*")) == ["3.txt"]


def test_a_linked_folder_is_named_whatever_the_glob_wants(disk: Place) -> None:
    disk.put("data/1.txt", "other/2.txt")
    (Path(disk.root) / "data" / "linked").symlink_to(Path(disk.root) / "data")
    found = disk.samples("data/**/*.txt")
    assert sorted(found) == ["1.txt", "linked"]
    assert found["linked"].error is not None
    assert found["linked"].error.error_class == "linked_folder"


def test_the_tag_is_what_the_object_is_now(place: Place) -> None:
    place.put("data/1.txt", data=b"a")
    (item,) = place.samples("data").values()
    source = place.source("data")
    assert source.tag(item.uri, item.locator) == item.tag
    assert list(source.objects()) == [(item.uri, item.tag)]
    place.put("data/1.txt", data=b"b")
    assert source.tag(item.uri, item.locator) != item.tag
    assert source.tag(item.uri + "x", "") is None


# -- source kinds


def test_the_kind_follows_from_the_spec(disk: Place) -> None:
    record = {"record": {"text": "t"}}
    kinds = {uri: open_source(SourceSpec(name="s", modality="text", uri=uri, **spec), {}).name for uri, spec in [
        ("/a", {}), ("/a.jsonl", {}), ("/a.jsonl", record), ("/b.ndjson", record), ("/c.CSV", record), ("/d.tsv", record), ("/e/*.parquet", record),
        ("/f.txt", {**record, "format": "csv"}),
    ]}  # fmt: skip
    assert kinds == {
        "/a": "files", "/a.jsonl": "jsonl", "/b.ndjson": "jsonl", "/c.CSV": "csv", "/d.tsv": "csv", "/e/*.parquet": "parquet", "/f.txt": "csv",
    }  # fmt: skip
    assert disk.source("a.jsonl").name == "files"
    assert {"archives", "csv", "files", "huggingface", "jsonl", "lance", "parquet", "tracks"} == set(
        sources()
    )


def test_no_kind_fits() -> None:
    with pytest.raises(
        UserError,
        match=r"source s: no source kind reads /a\.txt; set `format` to one of: .*csv, files, .*jsonl, .*parquet",
    ):
        open_source(SourceSpec(name="s", modality="text", uri="/a.txt", record={"text": "t"}), {})
    with pytest.raises(UserError, match="no source format is named 'xml'"):
        open_source(SourceSpec(name="s", modality="text", uri="/a", format="xml"), {})


@pytest.mark.parametrize(
    ("value", "kind", "expected"),
    [
        (None, "int", None),
        ("", "string", None),
        (7, "string", "7"),
        ("7", "int", 7),
        (" 7 ", "int", 7),
        ("-1.5", "float", -1.5),
        (3, "float", 3.0),
        ("Yes", "bool", True),
        (False, "bool", False),
        (0, "bool", False),
        ("2024-02-29", "timestamp", datetime(2024, 2, 29, tzinfo=UTC)),
        ("2024-02-29T12:00:00+02:00", "timestamp", datetime(2024, 2, 29, 10, tzinfo=UTC)),
        (datetime(2024, 1, 1), "timestamp", datetime(2024, 1, 1, tzinfo=UTC)),
    ],
)
def test_values_of_user_columns(value: Any, kind: str, expected: Any) -> None:
    assert cast_value(value, kind) == expected
    assert type(cast_value(value, kind)) is type(expected)


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ("many", "int"), ("1.5", "int"), (1.5, "int"), (float("inf"), "int"), (2**63, "int"), ("9" * 30, "int"), ([1], "int"), ("x", "float"),
        ("maybe", "bool"), (2, "bool"), ("2024-02-30", "timestamp"), (17, "timestamp"), ("a\ud800", "string"),
    ],
)  # fmt: skip
def test_values_that_do_not_fit(value: Any, kind: str) -> None:
    with pytest.raises(SampleError, match=f"is not a {kind}") as caught:
        cast_value(value, kind)
    assert caught.value.error_class == "schema_mismatch"


@pytest.mark.parametrize(
    ("pattern", "root", "rest"),
    [
        ("/a/b", "/a/b", None),
        ("/a/b/", "/a/b", None),
        ("/a/*.txt", "/a", "*.txt"),
        ("s3://b/x?/y", "s3://b", "x?/y"),
        ("/a/{b,c}/d", "/a", "{b,c}/d"),
    ],
)
def test_glob_root(pattern: str, root: str, rest: str | None) -> None:
    assert glob_root(pattern) == (root, rest)


def test_nested_alternatives() -> None:
    wanted = glob_regex("{a,b{1,2}}/*.t{xt,ex}")
    assert [
        bool(wanted.match(key)) for key in ("a/x.txt", "b1/x.tex", "b2/x.txt", "b/x.txt", "a/y/x.txt")
    ] == [
        True,
        True,
        True,
        False,
        False,
    ]


def test_times_are_stored_in_utc_whatever_was_imported() -> None:
    """pandera tells pyarrow to ignore zones; the second cell of a backfill has imported it, the first has not."""
    import pandera.polars  # noqa: F401

    moment = cast_value("2024-01-01T10:00:00+02:00", "timestamp")
    stored = pa.array([moment], pa.timestamp("us", tz="UTC"))[0].as_py()
    assert stored == datetime(2024, 1, 1, 8, tzinfo=UTC)
