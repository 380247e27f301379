"""Samples of WebDataset whose parts do not follow each other, shards without samples, markers of folders."""

from __future__ import annotations

import io
import random
import tarfile
import zipfile
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from fsspec.implementations.memory import MemoryFileSystem
from hypothesis import given, settings
from hypothesis import strategies as st

import mm_resources.sources.member_spool
from mm_embed_kernels.spec.source_spec import SourceSpec
from mm_resources.objects.opener import list_objects
from mm_resources.registry.registry import Registry
from mm_resources.sources import Source, open_source
from mm_resources.sources.archive_members import Member
from mm_resources.sources.member_spool import MemberSpool
from tests.resources.specs import freeze, list_samples, spec_of

Parts = Iterable[tuple[str, bytes]]


def write_tar(path: Path, parts: Parts = ()) -> Path:
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as out:
        for name, data in parts:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            out.addfile(info, io.BytesIO(data))
    return path


def write_zip(path: Path, parts: Parts = ()) -> Path:
    with zipfile.ZipFile(path, "w") as out:
        for name, data in parts:
            out.writestr(name, data)
    return path


def source_of(uri: Path | str, schema: dict[str, str] | None = None, **spec: Any) -> Source:
    return open_source(
        SourceSpec(**{"name": "s", "modality": "image", "uri": str(uri), **spec}), schema or {}
    )


# -- parts that stand apart


@pytest.mark.parametrize("write", [write_tar, write_zip])
def test_labels_behind_all_images(tmp_path: Path, write: Any) -> None:
    """As `tar --append` and writers of one column after the other leave them."""
    images = [(f"{i:03d}.jpg", b"%d" % i) for i in range(3)]
    labels = [(f"{i:03d}.cls", b"%d\n" % (i * 7)) for i in range(3)]
    columns = [(f"{i:03d}.json", b'{"stars": %d}' % i) for i in range(2)]
    source = source_of(
        write(tmp_path / f"a.{write.__name__[6:]}", images + labels + columns), {"stars": "int"}
    )
    items = list(source.list())
    assert [(item.key.rpartition("/")[2], item.label, item.columns) for item in items] == [
        ("000.jpg", "0", {"stars": 0}), ("001.jpg", "7", {"stars": 1}), ("002.jpg", "14", {}),
    ]  # fmt: skip
    assert [source.fetch(item.uri, item.locator) for item in items] == [b"0", b"1", b"2"]


def test_more_parts_than_are_held_together(tmp_path: Path) -> None:
    """One description of 1,500 pictures, behind them."""
    parts = [(f"scene.{i:05d}.jpg", b"x") for i in range(1_500)]
    path = write_tar(tmp_path / "a.tar", [*parts, ("scene.cls", b"forest")])
    items = list(source_of(path).list())
    assert [item.key for item in items] == [f"a.tar/{name}" for name, _ in parts]
    assert {item.label for item in items} == {"forest"}


def test_a_bad_part_elsewhere_costs_its_own_sample(tmp_path: Path) -> None:
    parts = [("1.jpg", b"1"), ("2.jpg", b"2"), ("1.json", b"{oops"), ("2.cls", b"x")]
    found = [
        (item.label, item.error and item.error.error_class)
        for item in source_of(write_tar(tmp_path / "a.tar", parts)).list()
    ]
    assert found == [(None, "bad_record"), ("x", None)]


def test_an_archive_that_ends_before_its_labels(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", [("1.jpg", b"1"), ("2.jpg", b"2"), ("1.cls", b"x"), ("2.cls", b"y")])
    path.write_bytes(path.read_bytes()[: 512 * 7])
    found = [(item.key, item.label, item.error and item.error.error_class) for item in source_of(path).list()]
    assert found[:2] == [("a.tar/1.jpg", "x", None), ("a.tar/2.jpg", None, None)]
    assert found[2] == ("a.tar", None, "truncated")


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from("abcde"), st.sampled_from(["jpg", "seg.png", "cls", "json"])), max_size=24
    ),
    st.integers(1, 4),
)
def test_order_of_parts_does_not_matter(parts: list[tuple[str, str]], most: int) -> None:
    """Compared with a dictionary of all parts; the order is that of the first members of each stem."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mm_resources.sources.member_spool, "_MOST_PARTS", most)
        spool = MemberSpool({"cls", "label"})
        stems: dict[str, list[int]] = defaultdict(list)
        first: dict[str, dict[str, str]] = defaultdict(dict)
        for i, (stem, part) in enumerate(parts):
            content = {"cls": b"%d" % i, "json": b'{"label": "%d", "other": 1}' % i}.get(part)
            spool.append(Member(f"{stem}.{part}", str(i), 1, content=content))
            stems[stem].append(i)
            if content is not None:
                first[stem].setdefault({"cls": "cls", "json": "label"}[part], str(i))
        found = [(member.locator, description.fields) for member, description in spool]
    assert found == [(str(i), first[stem]) for stem, places in stems.items() for i in places]


def test_descriptions_of_a_large_archive_are_not_held() -> None:
    """A gigabyte of them, as a hostile tar may have: only the fields that a spec names stay."""
    import tracemalloc

    spool, filler = MemberSpool({"label"}), b"x" * 500_000
    for i in range(60):
        content = b'{"label": "%d", "k%d": "%s"}' % (i, i, filler)
        spool.append(Member(f"{i % 2}.json", str(i), len(content), content=content))
    tracemalloc.start()
    try:
        fields = {member.stem: description.fields for member, description in spool}
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()
    assert fields == {"0": {"label": "0"}, "1": {"label": "1"}}


def test_neighbours_are_listed_as_before(tmp_path: Path) -> None:
    """Compared with the archive's own order: no sample of a well-formed shard moves."""
    dice = random.Random(1)
    parts = [
        (f"{dice.random():.6f}".replace(".", "") + f".{part}", b"1") for _ in range(200) for part in ("jpg",)
    ]
    path = write_tar(
        tmp_path / "a.tar",
        [each for name, data in parts for each in ((name, data), (name[:-3] + "cls", b"k"))],
    )
    assert [item.key for item in source_of(path).list()] == [f"a.tar/{name}" for name, _ in parts]


# -- shards without samples


@pytest.mark.parametrize("write", [write_tar, write_zip])
def test_an_empty_shard_is_recorded(registry: Registry, tmp_path: Path, write: Any) -> None:
    ending = write.__name__[6:]
    write(tmp_path / f"0.{ending}")
    write(tmp_path / f"1.{ending}", [("1.txt", b"some text")])
    write(tmp_path / f"2.{ending}", [("folder/", b""), ("2.json", b"{}")])
    spec = spec_of({"uri": f"{tmp_path}/*.{ending}", "members": "*.txt"})
    assert freeze(registry, spec) == [""]
    assert [(row["key"], row["error_class"]) for row in list_samples(registry, spec)] == [
        (f"0.{ending}", "empty_archive"), (f"1.{ending}/1.txt", None), (f"2.{ending}", "empty_archive"),
    ]  # fmt: skip
    assert str(registry.drifts.check(spec, spec.sources[0])) == ""
    write(tmp_path / f"0.{ending}", [("0.txt", b"more text")])
    assert str(registry.drifts.check(spec, spec.sources[0])) == f"source s0: 1 altered (0.{ending})"


def test_nothing_but_empty_shards_is_an_empty_source(registry: Registry, tmp_path: Path) -> None:
    write_tar(tmp_path / "0.tar")
    spec = spec_of({"uri": f"{tmp_path}/*.tar"})
    (message,) = freeze(registry, spec)
    assert message == f"source s0 lists nothing at {tmp_path}/*.tar; mend the path or set allow_empty: true"
    spec = spec_of({"uri": f"{tmp_path}/*.tar", "allow_empty": True}, version="v2")
    assert freeze(registry, spec) == [""]
    assert [row["error_class"] for row in list_samples(registry, spec)] == ["empty_archive"]
    assert str(registry.drifts.check(spec, spec.sources[0])) == ""


# -- markers of folders


def test_markers_in_archives_are_no_samples(tmp_path: Path) -> None:
    """Members of a regular file's type, as programs without folders write them."""
    parts = [("cats/", b""), ("cats/1.jpg", b"1"), ("dogs\\", b"")]
    for path in (write_tar(tmp_path / "a.tar", parts), write_zip(tmp_path / "a.zip", parts)):
        assert [item.key for item in source_of(path).list()] == [f"{path.name}/cats/1.jpg"]


class Marked(MemoryFileSystem):
    """A bucket whose file system lists the markers of folders as files, in the folder and above it."""

    protocol = "marked"
    store: dict[str, Any] = {}
    pseudo_dirs = [""]

    def ls(self, path: str, detail: bool = True, **kwargs: Any) -> Any:
        found = super().ls(path, detail=True, **kwargs)
        markers = [
            {"name": f"{info['name']}/", "size": 0, "type": "file"}
            for info in found
            if info["type"] == "directory"
        ]
        own = [{"name": self._strip_protocol(path) + "/", "size": 0, "type": "file"}]
        everything = own + found + markers
        return everything if detail else [info["name"] for info in everything]


def test_markers_in_buckets_are_no_samples() -> None:
    fs = Marked()
    for name in ("/shelf/1.txt", "/shelf/deep/2.txt", "/shelf/deep/er/3.txt"):
        fs.pipe_file(name, b"x")
    assert "/shelf/deep/" in fs.ls("/shelf", detail=False)
    names = [info["name"] for info in list_objects(fs, "/shelf", deep=True)]
    assert names == ["/shelf/1.txt", "/shelf/deep/2.txt", "/shelf/deep/er/3.txt"]
