from __future__ import annotations

import csv
import io
import json
import os
import tempfile
from pathlib import Path
from typing import Any
from uuid import uuid4

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mm_embed_kernels.errors import SampleError, UserError
from mm_embed_kernels.identity import content_hash
from mm_embed_kernels.spec.source_spec import SourceSpec
from mm_resources.sources import Listed, Source, open_source
from mm_resources.storage.filesystems import fsspec_options
from tests.resources.places import Place
from tests.s3 import BUCKET

RECORD = {"text": "text", "id": "id", "label": "label", "link": "link", "group": "group"}
KINDS = ["jsonl", "csv", "tsv", "parquet"]


def open_records(
    path: str, schema: dict[str, str] | None = None, record: dict[str, str] | None = None, **spec: Any
) -> Source:
    return open_source(
        SourceSpec(name="s", modality="text", uri=path, record=record or RECORD, **spec), schema or {}
    )


def read(source: Source, item: Listed) -> str:
    found = source.fetch(item.uri, item.locator)
    assert isinstance(found, bytes)
    return found.decode()


def errors(items: list[Listed]) -> list[str | None]:
    return [item.error.error_class if item.error else None for item in items]


def encode(kind: str, rows: list[dict[str, Any]]) -> bytes:
    if kind == "parquet":
        stream = io.BytesIO()
        parquet.write_table(pa.Table.from_pylist(rows), stream, row_group_size=2)
        return stream.getvalue()
    if kind == "jsonl":
        return "".join(json.dumps(row) + "\n" for row in rows).encode()
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(rows[0]), delimiter="\t" if kind == "tsv" else ",")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


@pytest.fixture(params=["disk", "s3"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "disk":
        return str(tmp_path)
    request.getfixturevalue("s3")
    return f"s3://{BUCKET}/{uuid4().hex}"


def put(folder: str, name: str, data: bytes) -> str:
    if "://" in folder:
        import fsspec

        fsspec.filesystem("s3", **fsspec_options(folder)).pipe_file(f"{folder}/{name}", data)
    else:
        Path(folder, name).write_bytes(data)
    return f"{folder}/{name}"


ROWS = [
    {"id": "a", "text": "one", "label": "x", "link": "l1", "group": "g", "stars": 5},
    {"id": "b", "text": "two\nlines", "label": "", "link": None, "group": "", "stars": None},
    {"id": "c", "text": "Grüße, \"quoted\"", "label": "y", "link": "l1", "group": "h", "stars": 1},
]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_records(folder: str, kind: str) -> None:
    path = put(folder, f"r.{kind}", encode(kind, ROWS))
    source = open_records(path, {"stars": "int", "label": "string"})
    items = list(source.list())
    assert [item.key for item in items] == ["a", "b", "c"]
    assert errors(items) == [None] * 3
    assert [(item.label, item.link, item.group) for item in items] == [
        ("x", "l1", "g"),
        (None, None, None),
        ("y", "l1", "h"),
    ]
    assert [item.columns for item in items] == [{"stars": 5}, {"stars": None}, {"stars": 1}]
    assert [read(source, item) for item in items] == [row["text"] for row in ROWS]
    assert [item.size for item in items] == [len(str(row["text"]).encode()) for row in ROWS]
    assert all(item.uri.endswith(f"r.{kind}") and item.tag for item in items)


@pytest.mark.parametrize("kind", KINDS)
def test_many_files_read_back_in_any_order(folder: str, kind: str) -> None:
    for name in ("1", "2"):
        rows = [{**row, "id": f"{name}-{row['id']}", "text": f"{name} {row['text']}"} for row in ROWS * 3]
        put(
            folder,
            f"{name}.{kind}",
            encode(kind, [{**row, "id": f"{row['id']}{i}"} for i, row in enumerate(rows)]),
        )
    source = open_records(f"{folder}/*.{kind}")
    items = list(source.list())
    assert len(items) == 18
    assert errors(items) == [None] * 18
    for item in items[::-1] + items[::5] + items[3:15:4]:
        name, number = item.key[0], int(item.key[3:])
        assert read(source, item) == f"{name} {ROWS[number % 3]['text']}"


def test_another_reader_reads_the_same(tmp_path: Path) -> None:
    """A worker opens its own source and sees only the locators."""
    import pickle

    for kind in KINDS:
        source = open_records(put(str(tmp_path), f"r.{kind}", encode(kind, ROWS)))
        items = list(source.list())
        assert read(source, items[1]) == "two\nlines"
        again = open_records(f"{tmp_path}/r.{kind}")
        assert [read(again, item) for item in items] == [row["text"] for row in ROWS]
    assert pickle.loads(pickle.dumps(source)).fetch(items[0].uri, items[0].locator) == b"one"


cells = st.text(
    st.characters(exclude_categories=("Cs",)) | st.sampled_from("\",\n\r\t '\\;\ufeff\u2028\x85\0"),
    max_size=12,
)


def listed_and_read(name: str, data: bytes) -> tuple[list[Listed], list[str | None]]:
    """Return the samples of a file, and the text of each record as fetched again, last record first."""
    with tempfile.TemporaryDirectory() as folder:
        source = open_records(put(folder, name, data), record={"text": "text", "label": "label"})
        items = list(source.list())
        texts = [None if item.error else read(source, item) for item in reversed(items)]
    return items, texts[::-1]


@settings(max_examples=150)
@given(
    st.lists(st.tuples(cells, cells), max_size=6),
    st.sampled_from(["\n", "\r\n"]),
    st.booleans(),
    st.booleans(),
    st.sampled_from(",\t"),
)
@example([("a\rb", ""), ("c", "")], "\n", True, False, ",")
@example([("", "")], "\n", False, True, ",")
def test_every_csv_record_is_read_back(
    rows: list[tuple[str, str]], newline: str, quote_all: bool, mark: bool, delimiter: str
) -> None:
    # The writer leaves a lone carriage return bare where it is no line end, which no reader accepts.
    quote_all = quote_all or any("\r" in cell or "\n" in cell for row in rows for cell in row)
    text = io.StringIO(newline="")
    writer = csv.writer(
        text,
        delimiter=delimiter,
        lineterminator=newline,
        quoting=csv.QUOTE_ALL if quote_all else csv.QUOTE_MINIMAL,
    )
    writer.writerows([("text", "label"), *rows])
    data = (b"\xef\xbb\xbf" if mark else b"") + text.getvalue().encode()
    items, texts = listed_and_read("r.csv" if delimiter == "," else "r.tsv", data)
    assert errors(items) == [None] * len(rows)
    assert texts == [row[0] for row in rows]
    assert [item.label for item in items] == [row[1] or None for row in rows]


def test_csv_without_a_last_line_end_and_with_blank_lines() -> None:
    items, texts = listed_and_read("r.csv", b'text,label\n\none,1\n\n"two\n\nlines",2\n\nthree,3')
    assert texts == ["one", "two\n\nlines", "three"]
    assert [item.label for item in items] == ["1", "2", "3"]


@settings(max_examples=150)
@given(
    st.lists(st.tuples(st.text(max_size=12), st.none() | st.text(max_size=5)), max_size=6),
    st.booleans(),
    st.sampled_from(["\n", "\r\n", "\n\n", " \n"]),
)
def test_every_json_record_is_read_back(
    rows: list[tuple[str, str | None]], ascii_only: bool, newline: str
) -> None:
    lines = [json.dumps({"text": text, "label": label}, ensure_ascii=ascii_only) for text, label in rows]
    items, texts = listed_and_read("r.jsonl", newline.join(lines).encode())
    assert errors(items) == [None] * len(rows)
    assert texts == [text for text, _ in rows]
    assert [item.label for item in items] == [label or None for _, label in rows]


@settings(max_examples=30)
@given(st.lists(st.text(max_size=12), min_size=1, max_size=9), st.integers(1, 4))
def test_every_parquet_record_is_read_back(rows: list[str], group: int) -> None:
    stream = io.BytesIO()
    parquet.write_table(pa.table({"label": ["x"] * len(rows), "text": rows}), stream, row_group_size=group)
    items, texts = listed_and_read("r.parquet", stream.getvalue())
    assert errors(items) == [None] * len(rows)
    assert texts == rows


def test_parquet_text_types() -> None:
    for kind in (pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())):
        stream = io.BytesIO()
        parquet.write_table(
            pa.table({"text": pa.array(["a", "b", "a"], pa.string()).cast(kind), "label": ["x"] * 3}), stream
        )
        assert listed_and_read("r.parquet", stream.getvalue())[1] == ["a", "b", "a"]


# -- trouble


def test_bad_json_lines_are_error_rows() -> None:
    lines = [
        b'{"text": "good"}',
        b"{oops",
        b'["a", "list"]',
        b'"text"',
        b"null",
        b'{"txt": "no text"}',
        b'{"text": null}',
        b'{"text": 5}',
        b'{"text": "\\ud800"}',
        b'{"text": "\xff"}',
        b"[" * 100_000,
        b'{"text": "also good"}',
    ]
    items, texts = listed_and_read("r.jsonl", b"\n".join(lines))
    assert errors(items) == [
        None, "bad_record", "bad_record", "bad_record", "bad_record", "missing_field", "schema_mismatch", "schema_mismatch",
        "encoding_unknown", "bad_record", "bad_record", None,
    ]  # fmt: skip
    assert [text for text in texts if text is not None] == ["good", "also good"]
    assert len({item.key for item in items}) == len(items)
    assert all(not item.error.retryable for item in items if item.error)


def test_bad_csv_rows_are_error_rows() -> None:
    data = b'text,label\ngood,1\nshort\nlong,2,3\n\xff,4\nbare\rreturn,5\n"also\ngood",6\n'
    items, texts = listed_and_read("r.csv", data)
    assert errors(items) == [None, "bad_record", "bad_record", "encoding_unknown", "bad_record", None]
    assert [text for text in texts if text is not None] == ["good", "also\ngood"]


def test_a_damaged_row_does_not_damage_the_next() -> None:
    """The bad byte stands in a row that the parser refuses anyway."""
    items, texts = listed_and_read("r.csv", b"text,label\n\xffa\rb,1\ngood,2\n")
    assert errors(items) == ["bad_record", None] or errors(items) == ["encoding_unknown", None]
    assert texts == [None, "good"]


def test_a_damaged_header_is_not_blamed_on_the_first_row() -> None:
    """Rows of one file that are alike fare alike."""
    try:
        items, _ = listed_and_read("r.csv", b"text,label,caf\xe9\none,1,x\ntwo,2,y\n")
    except (UserError, OSError):
        return  # the whole file may be refused
    assert len(set(errors(items))) == 1


def test_a_csv_of_old_macintosh_line_ends_is_one_clear_line() -> None:
    """Python's csv reader refuses the header; its own error would go through as a traceback."""
    (item,), _ = listed_and_read("r.csv", b"text,label\rone,1\rtwo,2\r")
    assert item.error is not None
    assert item.error.error_class == "bad_table"
    assert "\n" not in str(item.error)


@pytest.mark.parametrize("data", [b"", b"text,label\n", b"\n\n"])
def test_csv_without_rows(data: bytes) -> None:
    assert listed_and_read("r.csv", data)[0] == []


def test_parquet_without_the_text_column() -> None:
    stream = io.BytesIO()
    parquet.write_table(pa.table({"body": ["a"], "n": [1]}), stream)
    items, _ = listed_and_read("r.parquet", stream.getvalue())
    assert errors(items) == ["missing_field"]
    assert items[0].error is not None
    assert items[0].error.message == "the record has no field 'text'; it has: body, n"


@pytest.mark.parametrize("name", ["r.parquet", "r.csv", "r.jsonl"])
def test_a_file_that_is_another_thing(tmp_path: Path, name: str) -> None:
    """The source as a whole is refused in a way that its callers catch, or its rows are."""
    source = open_records(put(str(tmp_path), name, b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"))
    try:
        assert None not in errors(list(source.list()))
    except (OSError, UserError) as error:
        assert name in str(error)


def test_files_that_the_listing_refuses_are_passed_on(tmp_path: Path) -> None:
    put(str(tmp_path), "a.jsonl", b'{"text": "a"}\n')
    os.mkfifo(tmp_path / "b.jsonl")
    items = list(open_records(f"{tmp_path}/*.jsonl").list())
    assert errors(items) == [None, "not_a_file"]


def test_a_record_file_whose_name_is_not_utf8(tmp_path: Path) -> None:
    path = os.fsencode(tmp_path) + b"/caf\xe9.jsonl"
    with open(path, "wb") as stream:
        stream.write(b'{"text": "a"}\n')
    put(str(tmp_path), "plain.jsonl", b'{"text": "b"}\n')
    source = open_records(f"{tmp_path}/*.jsonl")
    items = list(source.list())
    good = [read(source, item) for item in items if not item.error]
    assert "b" in good
    assert len(items) == 2


# -- keys


@pytest.mark.parametrize("kind", KINDS)
def test_duplicate_ids(tmp_path: Path, kind: str) -> None:
    rows = [{"id": key, "text": text} for key, text in (("a", "1"), ("b", "2"), ("a", "3"), ("a", "1"))]
    items = list(
        open_records(
            put(str(tmp_path), f"r.{kind}", encode(kind, rows)), record={"text": "text", "id": "id"}
        ).list()
    )
    assert [item.key for item in items] == ["a", "b", "a#2", "a#3"]
    assert errors(items) == [None, None, "duplicate_key", "duplicate_key"]
    assert items[3].error is not None
    assert items[3].error.message == "the id 'a' stands 3 times in the source"


def test_duplicate_ids_across_files(tmp_path: Path) -> None:
    for name in "12":
        put(str(tmp_path), f"{name}.jsonl", b'{"id": 7, "text": "x"}\n')
    items = list(open_records(f"{tmp_path}/*.jsonl").list())
    assert [item.key for item in items] == ["7", "7#2"]
    assert errors(items) == [None, "duplicate_key"]


@pytest.mark.parametrize("kind", KINDS)
def test_records_without_ids_are_keyed_by_content_and_occurrence(tmp_path: Path, kind: str) -> None:
    def keys(texts: list[str], name: str) -> list[str]:
        path = put(
            str(tmp_path),
            f"{name}.{kind}",
            encode(kind, [{"text": text, "n": i} for i, text in enumerate(texts)]),
        )
        items = list(open_records(path, record={"text": "text"}).list())
        assert errors(items) == [None] * len(texts)
        return [item.key for item in items]

    a, b = content_hash(b"a"), content_hash(b"b")
    assert keys(["a", "b", "a", "a"], "one") == [a, b, f"{a}#2", f"{a}#3"]
    # A record that is put in front renames nothing.
    assert set(keys(["new", "a", "b", "a", "a"], "two")) == {a, b, f"{a}#2", f"{a}#3", content_hash(b"new")}


def test_records_that_lack_their_id_are_keyed_by_content(tmp_path: Path) -> None:
    """Of records without the mapped id, equal texts are two samples, not one id used twice."""
    path = put(
        str(tmp_path),
        "r.jsonl",
        b'{"text": "a", "id": "i"}\n{"text": "a"}\n{"text": "a", "id": ""}\n{"text": "a", "id": null}\n',
    )
    items = list(open_records(path).list())
    a = content_hash(b"a")
    assert [item.key for item in items] == ["i", a, f"{a}#2", f"{a}#3"]
    assert errors(items) == [None] * 4


@pytest.mark.parametrize("ids", [["x", "x", "x#2"], ["x#2", "x", "x"], ["x", "x#2", "x", "x#2"]])
def test_keys_are_unique_whatever_the_ids(tmp_path: Path, ids: list[str]) -> None:
    path = put(
        str(tmp_path), "r.jsonl", encode("jsonl", [{"id": key, "text": str(i)} for i, key in enumerate(ids)])
    )
    keys = [item.key for item in open_records(path).list()]
    assert len(set(keys)) == len(ids), keys


@pytest.mark.parametrize("field", ["id", "label", "link", "group", "\\ud800"])
def test_unpaired_surrogates_cost_their_own_record(tmp_path: Path, field: str) -> None:
    """JSON may hold them; no table can."""
    path = put(
        str(tmp_path),
        "r.jsonl",
        b'{"text": "a", "%s": "\\ud800"}\n{"txet": 1, "%s": "\\ud800"}\n{"text": "b"}\n'
        % ((field.encode(),) * 2),
    )
    items = list(open_records(path).list())
    assert len(items) == 3
    assert items[2].error is None
    for item in items:
        for value in (
            item.key,
            item.label,
            item.link,
            item.group,
            item.error.message if item.error else None,
        ):
            (value or "").encode()


# -- fetching what has changed


@pytest.mark.parametrize("kind", KINDS)
def test_fetching_from_a_file_that_became_shorter(tmp_path: Path, kind: str) -> None:
    path = put(str(tmp_path), f"r.{kind}", encode(kind, ROWS))
    last = list(open_records(path).list())[-1]
    put(str(tmp_path), f"r.{kind}", encode(kind, ROWS[:1]))
    with pytest.raises(SampleError):
        open_records(path).fetch(last.uri, last.locator)


@pytest.mark.parametrize("kind", KINDS)
def test_fetching_from_a_file_that_is_gone(folder: str, kind: str) -> None:
    path = put(folder, f"r.{kind}", encode(kind, ROWS))
    (first, *_) = open_records(path).list()
    with pytest.raises(SampleError, match="was listed but is gone"):
        open_records(path).fetch(first.uri.replace("r.", "gone."), first.locator)


def test_flavour_changes_with_what_is_read(tmp_path: Path) -> None:
    """The fetch cache is keyed by it: another text field gives other bytes for the same locator."""
    flavours = {
        open_records(f"/r.{kind}", record={"text": text}).flavour for kind in KINDS for text in ("a", "b")
    }
    assert len(flavours) == 6
    assert open_records("/r.csv", record={"text": "a", "label": "b"}).flavour in flavours


def test_a_record_kind_needs_its_mapping(tmp_path: Path) -> None:
    path = put(str(tmp_path), "r.jsonl", b"{}\n")
    with pytest.raises(UserError, match="needs `record` with at least `text`"):
        list(open_source(SourceSpec(name="s", modality="text", uri=path, format="jsonl"), {}).list())


def test_rows_with_semicolons(disk: Place) -> None:
    """Spreadsheets of countries with a decimal comma separate fields by semicolons."""
    disk.put("a.csv", data=b'id;text;note\n1;eins, zwei;x\n2;"drei; vier";y\n')
    disk.put("b.tsv", data=b"a;b\tc\nx\ty\n")
    source = disk.source("a.csv", record={"text": "text", "id": "id"}, schema={"note": "string"})
    items = list(source.list())
    assert [(item.key, item.columns["note"]) for item in items] == [("1", "x"), ("2", "y")]
    assert [source.fetch(item.uri, item.locator) for item in items] == [b"eins, zwei", b"drei; vier"]
    (item,) = disk.source("b.tsv", record={"text": "c", "id": "a;b"}).list()
    assert item.key == "x"
