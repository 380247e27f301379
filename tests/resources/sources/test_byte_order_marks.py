"""Files that begin with a byte order mark, as Excel and PowerShell write them."""

from __future__ import annotations

import codecs
import gzip
import io
import pickle
import tarfile
from pathlib import Path
from typing import Any

import pytest

from mm_embed_kernels.errors import UserError
from mm_embed_kernels.spec.source_spec import SourceSpec
from mm_resources.sources import Source, open_source
from tests.resources.places import Place

# Encodings with their marks; Python's own codecs write these files.
MARKED = {
    "utf-8": (codecs.BOM_UTF8, "utf-8"),
    "utf-16-le": (codecs.BOM_UTF16_LE, "utf-16-le"),
    "utf-16-be": (codecs.BOM_UTF16_BE, "utf-16-be"),
    "utf-32-le": (codecs.BOM_UTF32_LE, "utf-32-le"),
}
CSV = 'file,label,text\r\n1.txt,Käse,one\r\n2.txt,\U0001f9c0,"two\r\nlines"\r\n'
JSONL = '{"file": "1.txt", "label": "Käse", "text": "one"}\n\n{"file": "2.txt", "label": "\U0001f9c0", "text": "two\\r\\nlines"}'
FILES = {
    "t.csv": CSV,
    "t.tsv": CSV.replace(",", "\t"),
    "t.jsonl": JSONL,
    "t.csv.gz": CSV,
    "t.jsonl.gz": JSONL,
}


def encode(text: str, encoding: str, name: str = "") -> bytes:
    mark, codec = MARKED[encoding]
    data = mark + text.encode(codec)
    return gzip.compress(data) if name.endswith(".gz") else data


def source_of(uri: Path | str, **spec: Any) -> Source:
    return open_source(SourceSpec(**{"name": "s", "modality": "text", "uri": str(uri), **spec}), {})


@pytest.mark.parametrize("encoding", MARKED)
@pytest.mark.parametrize("name", FILES)
def test_records(tmp_path: Path, name: str, encoding: str) -> None:
    (tmp_path / name).write_bytes(encode(FILES[name], encoding, name))
    source = source_of(tmp_path / name, record={"text": "text", "id": "file", "label": "label"})
    items = list(source.list())
    assert [(item.key, item.label, item.error) for item in items] == [
        ("1.txt", "Käse", None),
        ("2.txt", "\U0001f9c0", None),
    ]
    again = pickle.loads(pickle.dumps(source))
    assert [again.fetch(item.uri, item.locator) for item in (items[1], items[0])] == [b"two\r\nlines", b"one"]
    assert list(source.objects()) == [(items[0].uri, items[0].tag)]


@pytest.mark.parametrize("encoding", MARKED)
@pytest.mark.parametrize("name", FILES)
def test_side_tables(place: Place, name: str, encoding: str) -> None:
    place.put("data/1.txt", "data/2.txt")
    place.put(name, data=encode(FILES[name], encoding, name))
    found = place.samples("data", table={"uri": f"{place.root}/{name}", "key": "file", "columns": ["label"]})
    assert {key: item.label for key, item in found.items()} == {"1.txt": "Käse", "2.txt": "\U0001f9c0"}


@pytest.mark.parametrize("encoding", MARKED)
def test_parts_of_an_archive(tmp_path: Path, encoding: str) -> None:
    parts = {
        "1.jpg": b"1",
        "1.cls": encode("3\n", encoding),
        "2.jpg": b"2",
        "2.json": encode('{"label": "Käse"}', encoding),
    }
    with tarfile.open(tmp_path / "a.tar", "w") as out:
        for name, data in parts.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            out.addfile(info, io.BytesIO(data))
    items = source_of(tmp_path / "a.tar", modality="image").list()
    assert [(item.label, item.error) for item in items] == [("3", None), ("Käse", None)]


def test_a_mark_before_an_empty_line(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_bytes(codecs.BOM_UTF8 + b'\n{"text": "a"}\n')
    (item,) = source_of(tmp_path / "t.jsonl", record={"text": "text"}).list()
    assert item.error is None


def test_many_lines_of_utf16(tmp_path: Path) -> None:
    """More than a buffer, with characters across its borders; read backwards."""
    rows = [f"{i} \U0001f9c0" * 20 for i in range(5_000)]
    (tmp_path / "t.csv").write_bytes(encode("text\n" + "\n".join(rows), "utf-16-le"))
    source = source_of(tmp_path / "t.csv", record={"text": "text"})
    items = list(source.list())
    assert len(items) == len(rows)
    for i in (4_999, 0, 2_500, 1):
        assert source.fetch(items[i].uri, items[i].locator) == rows[i].encode()


def test_a_file_that_is_not_what_its_mark_says(disk: Place) -> None:
    disk.put("data/1.txt")
    disk.put("t.csv", data=encode(CSV, "utf-16-le")[:-1])
    (*_, last) = source_of(f"{disk.root}/t.csv", record={"text": "text"}).list()
    assert last.error is not None
    assert (last.error.error_class, last.error.message) == (
        "encoding_unknown", f"{disk.root}/t.csv begins as UTF-16, but is not",
    )  # fmt: skip
    with pytest.raises(UserError, match="begins as UTF-16, but is not"):
        disk.samples("data", table={"uri": f"{disk.root}/t.csv", "key": "file", "columns": ["label"]})
