"""Members of tar and zip archives, sound ones and such as were made to harm."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import pickle
import random
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import pyarrow as pa
import pytest

import mm_resources.objects.compressed_streams
import mm_resources.sources.archive_members
import mm_resources.sources.archives
from mm_embed_kernels.errors import SampleError
from mm_embed_kernels.spec.source_spec import SourceSpec
from mm_resources.sources import Listed, Source, open_source
from mm_resources.storage.store import LARGE_BYTES
from tests.resources.places import Place
from tests.resources.server import Server
from tests.s3 import BUCKET, S3

Parts = dict[str, bytes]


def tar(parts: Parts, *more: tarfile.TarInfo) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name, data in parts.items():
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(data), 1_600_000_000
            archive.addfile(info, io.BytesIO(data))
        for info in more:
            archive.addfile(info)
    return stream.getvalue()


def zipped(parts: Parts, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        for name, data in parts.items():
            archive.writestr(zipfile.ZipInfo(name, (2020, 9, 13, 12, 26, 40)), data, method)
    return stream.getvalue()


ARCHIVES: dict[str, Callable[[Parts], bytes]] = {
    "a.tar": tar,
    "a.tar.gz": lambda parts: gzip.compress(tar(parts)),
    "a.tgz": lambda parts: gzip.compress(tar(parts)),
    "a.tar.bz2": lambda parts: bz2.compress(tar(parts)),
    "a.tar.xz": lambda parts: lzma.compress(tar(parts)),
    "a.tar.zst": lambda parts: pa.compress(tar(parts), "zstd", asbytes=True),
    "a.zip": zipped,
    "stored.zip": lambda parts: zipped(parts, zipfile.ZIP_STORED),
}


def source_of(uri: str | Path, schema: dict[str, str] | None = None, **spec: Any) -> Source:
    return open_source(
        SourceSpec(**{"name": "s", "modality": "image", "uri": str(uri), **spec}), schema or {}
    )


def read(source: Source, item: Listed) -> bytes | str:
    if item.error:
        return item.error.error_class
    try:
        found = source.fetch(item.uri, item.locator)
        if isinstance(found, bytes):
            return found
        with found:
            return found.read()
    except SampleError as error:
        return error.error_class


def contents(source: Source) -> dict[str, bytes | str]:
    items = list(source.list())
    assert len({item.key for item in items}) == len(items)
    return {item.key: read(source, item) for item in items}


WEB_DATASET = {
    "000001.jpg": b"one", "000001.json": b'{"stars": 5, "label": "pets"}', "000001.cls": b"3", "000001.txt": b"a cat\n",
    "000002.jpg": b"two", "000002.seg.png": b"mask", "000002.cls": b" 7\n", "sub/000001.jpg": b"three", ".hidden.jpg": b"no",
}  # fmt: skip


@pytest.mark.parametrize("name", ARCHIVES)
def test_parts_of_one_stem_share_an_entity(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(ARCHIVES[name](WEB_DATASET))
    source = source_of(tmp_path / name, {"stars": "int", "txt": "string"})
    items = {item.key.removeprefix(f"{name}/"): item for item in source.list()}
    assert set(items) == {"000001.jpg", "000002.jpg", "000002.seg.png", "sub/000001.jpg"}
    assert {key: item.link for key, item in items.items()} == {
        "000001.jpg": f"{name}/000001", "000002.jpg": f"{name}/000002", "000002.seg.png": f"{name}/000002", "sub/000001.jpg": f"{name}/sub/000001",
    }  # fmt: skip
    assert {key: (item.label, item.columns) for key, item in items.items()} == {
        "000001.jpg": ("pets", {"stars": 5, "txt": "a cat"}), "000002.jpg": ("7", {}), "000002.seg.png": ("7", {}), "sub/000001.jpg": (None, {}),
    }  # fmt: skip
    assert {read(source, item) for item in items.values()} == {b"one", b"two", b"mask", b"three"}
    first = items["000001.jpg"]
    assert (first.size, first.modified_at and first.modified_at.isoformat()) == (
        3,
        "2020-09-13T12:26:40+00:00",
    )
    assert source.tag(first.uri, first.locator) == first.tag != ""
    assert list(source.objects()) == [(first.uri, first.tag)]
    assert not source.single_object
    # The other modalities of the same archive are sources of their own, and the same entities.
    texts = {item.key: item for item in source_of(tmp_path / name, modality="text", members="*.txt").list()}
    assert {key: item.link for key, item in texts.items()} == {f"{name}/000001.txt": f"{name}/000001"}


@pytest.mark.parametrize("name", ARCHIVES)
def test_members_are_read_back_in_any_order(tmp_path: Path, name: str) -> None:
    parts = {f"{i:03d}.jpg": bytes([i]) * (i * 50) for i in range(100)}
    (tmp_path / name).write_bytes(ARCHIVES[name](parts))
    items = list(source_of(tmp_path / name).list())
    source = pickle.loads(pickle.dumps(source_of(tmp_path / name)))
    order = [0, 99, 98, 3, 3, *range(40, 60)]
    assert [read(source, items[i]) for i in order] == [parts[f"{i:03d}.jpg"] for i in order]
    assert read(pickle.loads(pickle.dumps(source)), items[5]) == parts["005.jpg"]


def test_a_compressed_archive_is_unpacked_once_forward(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unpack, opened = mm_resources.objects.compressed_streams.open_unpacked, []
    monkeypatch.setattr(
        mm_resources.sources.archives,
        "open_unpacked",
        lambda uri, opener: unpack(uri, lambda: opened.append(uri) or opener()),
    )
    parts = {f"{i:05d}.{part}": b"x" * 3_000 for i in range(500) for part in ("jpg", "txt", "cls")}
    (tmp_path / "a.tar.gz").write_bytes(gzip.compress(tar(parts)))
    source = source_of(tmp_path / "a.tar.gz")
    items = list(source.list())
    assert (len(items), len(opened)) == (500, 1)
    assert all(read(source, item) == b"x" * 3_000 for item in items)
    assert len(opened) == 2


def test_shards(tmp_path: Path) -> None:
    for i in range(4):
        (tmp_path / f"s-{i:04d}.tar").write_bytes(tar({f"{i}.jpg": bytes([i])}))
    (tmp_path / "s-0003.zip").write_bytes(zipped({"z.jpg": b"z"}))
    assert list(contents(source_of(f"{tmp_path}/s-{{0001..0002}}.tar"))) == [
        "s-0001.tar/1.jpg",
        "s-0002.tar/2.jpg",
    ]
    assert len(contents(source_of(f"{tmp_path}/*.tar"))) == 4
    assert list(contents(source_of(f"{tmp_path}/s-0003.{{tar,zip}}"))) == [
        "s-0003.tar/3.jpg",
        "s-0003.zip/z.jpg",
    ]


def test_which_members(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(
        zipped({"x/1.jpg": b"1", "./x/y/2.png": b"2", "3.wav": b"3", "4.json": b"{}", ".5.jpg": b""})
    )
    for members, keys in {
        "**/*.{jpg,png}": ["x/1.jpg", "x/y/2.png"],
        "*.wav": ["3.wav"],
        "*.json": ["4.json"],
        "x/*": ["x/1.jpg"],
    }.items():
        assert [item.key for item in source_of(tmp_path / "a.zip", members=members).list()] == [
            f"a.zip/{key}" for key in keys
        ]


def test_labels_from_folders_and_side_tables(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(zipped({"cats/1.jpg": b"1", "dogs/2.jpg": b"2"}))
    labels = [item.label for item in source_of(tmp_path / "a.zip", label={"from": "parent_dir"}).list()]
    assert labels == ["cats", "dogs"]
    (tmp_path / "t.csv").write_text("file,stars\n1.jpg,4\na.zip/dogs/2.jpg,5\n")
    table = {"uri": str(tmp_path / "t.csv"), "key": "file", "columns": ["stars"]}
    assert [item.columns for item in source_of(tmp_path / "a.zip", {"stars": "int"}, table=table).list()] == [
        {"stars": 4},
        {"stars": 5},
    ]


def test_transcripts_of_sounds(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(
        tar({"1.wav": b"RIFF", "1.txt": b"hello\n", "2.wav": b"RIFF", "2.json": b'{"transcript": "bye"}'})
    )
    assert [item.transcript for item in source_of(tmp_path / "a.tar", modality="audio").list()] == [
        "hello",
        "bye",
    ]


@pytest.mark.parametrize("name", ["a.tar", "a.tar.gz", "a.zip"])
def test_large_members_are_streamed(tmp_path: Path, name: str) -> None:
    large = random.Random(1).randbytes(LARGE_BYTES + 1000)
    (tmp_path / name).write_bytes(ARCHIVES[name]({"1.bin": b"small", "2.bin": large, "3.bin": b"next"}))
    source = source_of(tmp_path / name)
    items = list(source.list())
    assert not isinstance(source.fetch(items[1].uri, items[1].locator), bytes)
    assert [read(source, item) for item in items] == [b"small", large, b"next"]
    limited = source_of(tmp_path / name, fetch={"max_bytes": LARGE_BYTES})
    assert [read(limited, item) for item in limited.list()] == [b"small", "too_large", b"next"]


@pytest.mark.parametrize("name", ["a.tar", "a.tar.gz", "a.zip"])
def test_archives_behind_urls(web: Server, name: str) -> None:
    parts = {f"{i}.jpg": random.Random(i).randbytes(500_000) for i in range(30)}
    web.bodies[f"/{name}"] = ARCHIVES[name](parts)
    source = source_of(
        f"{web.url}/{name}", fetch={"allow_private": ["127.0.0.2/32"], "requests_per_second": None}
    )
    found = contents(source)
    assert found == {f"{name}/{key}": data for key, data in parts.items()}
    web.bodies["/shard-1.tar"] = web.bodies["/shard-2.tar"] = tar({"1.jpg": b"1"})
    shards = source_of(f"{web.url}/shard-{{1..3}}.tar", fetch={"allow_private": True, "retries": 0})
    assert contents(shards) == {
        "shard-1.tar/1.jpg": b"1",
        "shard-2.tar/1.jpg": b"1",
        "shard-3.tar": "http_404",
    }


def test_archives_in_a_bucket(s3: S3) -> None:
    place = Place(f"s3://{BUCKET}/{uuid4().hex}")
    place.put("a.tar", data=tar({"1.jpg": b"1"}))
    place.put("b.zip", data=zipped({"1.jpg": b"2"}))
    assert contents(source_of(f"{place.root}/*.tar")) == {"a.tar/1.jpg": b"1"}
    assert contents(source_of(f"{place.root}/b.zip")) == {"b.zip/1.jpg": b"2"}


# -- trouble


def info(name: str, kind: bytes = tarfile.REGTYPE, **given: Any) -> tarfile.TarInfo:
    found = tarfile.TarInfo(name)
    found.type = kind
    for key, value in given.items():
        setattr(found, key, value)
    return found


def test_members_that_mislead(tmp_path: Path) -> None:
    names = [
        "../up.jpg",
        "/etc/passwd",
        "a/../../b.jpg",
        "..\\up.jpg",
        "C:\\x.jpg",
        "inner.zip",
        "inner.tar.gz",
        "good.jpg",
    ]
    expected = ["path_escape"] * 5 + ["nested_archive"] * 2
    (tmp_path / "a.tar").write_bytes(tar(
        {name: b"x" for name in names}, info("soft.jpg", tarfile.SYMTYPE, linkname="/etc/passwd"), info("hard.jpg", tarfile.LNKTYPE, linkname="good.jpg"),
        info("pipe.jpg", tarfile.FIFOTYPE), info("null.jpg", tarfile.CHRTYPE, devmajor=1, devminor=3), info("folder", tarfile.DIRTYPE),
    ))  # fmt: skip
    found = contents(source_of(tmp_path / "a.tar"))
    assert list(found.values()) == [
        *expected,
        b"x",
        "linked_member",
        "linked_member",
        "not_a_file",
        "not_a_file",
    ]
    (tmp_path / "a.zip").write_bytes(zipped({name: b"x" for name in names}))
    with zipfile.ZipFile(tmp_path / "a.zip", "a") as archive:
        link = zipfile.ZipInfo("soft.jpg")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
    found = contents(source_of(tmp_path / "a.zip"))
    assert {key: value for key, value in found.items() if isinstance(value, bytes)} == {
        "a.zip/good.jpg": b"x"
    }
    assert sorted(value for value in found.values() if isinstance(value, str)) == sorted(
        [*expected, "linked_member"]
    )


def test_names_that_stand_twice_or_are_no_text(tmp_path: Path) -> None:
    stream = io.BytesIO()
    with tarfile.open(
        fileobj=stream, mode="w", format=tarfile.GNU_FORMAT, encoding="utf-8", errors="surrogateescape"
    ) as archive:
        for name in ("1.jpg", "1.jpg", "caf\udce9.jpg", "x" * 300 + ".jpg"):
            archive.addfile(info(name, size=1), io.BytesIO(b"x"))
    (tmp_path / "a.tar").write_bytes(stream.getvalue())
    found = contents(source_of(tmp_path / "a.tar"))
    assert list(found.values()) == [b"x", "duplicate_key", b"x", b"x"]
    assert [key.encode() for key in found][2] == b"a.tar/caf\\xe9.jpg"


def test_parts_that_describe_badly(tmp_path: Path) -> None:
    parts = {
        "1.jpg": b"1", "1.json": b"{oops", "2.jpg": b"2", "2.json": b"[1]", "3.jpg": b"3", "3.cls": b"\xff", "4.jpg": b"4", "4.json": b'{"stars": "many"}',
        "5.jpg": b"5", "5.json": b" " * (2 << 20), "6.jpg": b"6", "6.json": b'{"label": "\\ud800"}', "7.jpg": b"7", "7.json": b"[" * 100_000,
    }  # fmt: skip
    for name in ("a.tar", "a.zip"):
        (tmp_path / name).write_bytes(ARCHIVES[name](parts))
        assert list(contents(source_of(tmp_path / name, {"stars": "int"})).values()) == [
            "bad_record", b"2", "bad_record", "schema_mismatch", "bad_record", "encoding_unknown", "bad_record"
        ]  # fmt: skip


@pytest.mark.parametrize("name", ARCHIVES)
def test_archives_that_are_cut_off(tmp_path: Path, name: str) -> None:
    """Complete members are read; the rest is a failure, of the member or of the archive."""
    whole = ARCHIVES[name]({f"{i}.jpg": random.Random(i).randbytes(40_000) for i in range(60)})
    (tmp_path / name).write_bytes(whole[: len(whole) * 2 // 3])
    found = contents(source_of(tmp_path / name))
    good = [value for value in found.values() if isinstance(value, bytes)]
    assert len(good) > 10 or name.endswith(".zip")
    assert set(found.values()) - set(good) <= {"truncated", "bad_archive", "bad_compression"}
    assert len(found) > len(good)


@pytest.mark.parametrize("name", ARCHIVES)
def test_what_is_no_archive(tmp_path: Path, name: str) -> None:
    for content in (b"", b"not an archive " * 1000, b"\0" * 100, b"PK\x03\x04" + b"x" * 1000):
        (tmp_path / name).write_bytes(content)
        found = contents(source_of(tmp_path / name))
        assert set(found.values()) <= {"bad_archive", "bad_compression", "truncated"}
        assert list(found) == [name] or not found


def test_damage_between_members(tmp_path: Path) -> None:
    """Python's reader takes it for the end."""
    whole = bytearray(tar({"1.jpg": b"1", "2.jpg": b"2", "3.jpg": b"3"}))
    whole[1024 : 1024 + 512] = b"x" * 512
    (tmp_path / "a.tar").write_bytes(whole)
    assert contents(source_of(tmp_path / "a.tar")) == {"a.tar/1.jpg": b"1", "a.tar": "bad_archive"}


def test_encrypted_and_unknown_members(tmp_path: Path) -> None:
    whole = bytearray(zipped({"1.jpg": b"one", "2.jpg": b"two", "3.jpg": b"three"}, zipfile.ZIP_STORED))
    for name, offset, value in ((b"1.jpg", 8, 1), (b"2.jpg", 10, 99)):  # in the table: flags; method
        place = whole.rindex(name) - 46
        struct.pack_into("<H", whole, place + offset, value)
    flipped = whole.index(b"three")
    whole[flipped] ^= 1
    (tmp_path / "a.zip").write_bytes(whole)
    assert list(contents(source_of(tmp_path / "a.zip")).values()) == [
        "encrypted",
        "unsupported_member",
        "bad_archive",
    ]


def test_bombs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mm_resources.objects.compressed_streams, "BOMB_BYTES", 4 << 20)
    zeros = b"\0" * (40 << 20)
    (tmp_path / "a.zip").write_bytes(zipped({"1.jpg": zeros, "2.jpg": b"good"}))
    (tmp_path / "a.tar.gz").write_bytes(gzip.compress(tar({"1.jpg": zeros, "2.jpg": b"good"})))
    assert contents(source_of(tmp_path / "a.zip")) == {
        "a.zip/1.jpg": "decompression_bomb",
        "a.zip/2.jpg": b"good",
    }
    assert contents(source_of(tmp_path / "a.tar.gz")) == {
        "a.tar.gz/1.jpg": "decompression_bomb",
        "a.tar.gz": "decompression_bomb",
    }


def test_a_size_that_lies(tmp_path: Path) -> None:
    """The table says ten bytes, the stream holds forty million."""
    whole = bytearray(zipped({"1.jpg": b"\0" * (40 << 20)}))
    struct.pack_into("<I", whole, whole.rindex(b"1.jpg") - 46 + 24, 10)
    (tmp_path / "a.zip").write_bytes(whole)
    assert contents(source_of(tmp_path / "a.zip")) == {"a.zip/1.jpg": "bad_archive"}


def test_headers_that_ask_for_much(tmp_path: Path) -> None:
    """An extended header of a gigabyte, of which the reader would make one string."""
    header = info("././@PaxHeader", tarfile.XHDTYPE, size=1 << 30).tobuf()
    with (tmp_path / "a.tar").open("wb") as stream:
        stream.write(tar({"1.jpg": b"1"})[:1024] + header)
        stream.truncate(2 << 30)  # a hole, which takes no disk
    assert contents(source_of(tmp_path / "a.tar")) == {"a.tar/1.jpg": b"1", "a.tar": "bad_archive"}


def test_headers_without_end(tmp_path: Path) -> None:
    """Each long name announces another: the reader calls itself."""
    chain = (
        info("././@LongLink", tarfile.GNUTYPE_LONGNAME, size=5).tobuf(tarfile.GNU_FORMAT)
        + b"name\0".ljust(512, b"\0")
    ) * 5_000
    (tmp_path / "a.tar").write_bytes(tar({"1.jpg": b"1"})[:1024] + chain)
    assert contents(source_of(tmp_path / "a.tar")) == {"a.tar/1.jpg": b"1", "a.tar": "bad_archive"}


def test_a_table_that_fills_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mm_resources.sources.archive_members, "_ZIP_TABLE", 100_000)
    (tmp_path / "a.zip").write_bytes(zipped({f"{i}.jpg": b"" for i in range(3_000)}))
    assert contents(source_of(tmp_path / "a.zip")) == {"a.zip": "bad_archive"}


@pytest.mark.parametrize("name", ["a.tar", "a.tar.gz", "a.tar.zst", "a.zip"])
def test_flipped_bits(tmp_path: Path, name: str) -> None:
    whole, dice = (
        ARCHIVES[name]({f"{i}.{part}": b"some content" * 20 for i in range(8) for part in ("jpg", "json")}),
        random.Random(3),
    )
    for _ in range(120):
        damaged = bytearray(whole)
        for _ in range(3):
            damaged[dice.randrange(len(damaged))] ^= 1 << dice.randrange(8)
        (tmp_path / name).write_bytes(damaged)
        contents(source_of(tmp_path / name, fetch={"max_bytes": 1 << 20}))


def test_an_archive_that_became_another(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(zipped({"1.jpg": b"1", "2.jpg": b"2"}))
    source = source_of(tmp_path / "a.zip")
    items = list(source.list())
    (tmp_path / "a.zip").write_bytes(zipped({"1.jpg": b"1"}))
    assert read(source, items[1]) == "source_changed"
    (tmp_path / "a.zip").unlink()
    assert read(source_of(tmp_path / "a.zip"), items[1]) == "not_found"
    assert json.dumps([item.key for item in items]) == '["a.zip/1.jpg", "a.zip/2.jpg"]'
