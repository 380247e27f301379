"""NaN and NaT are no values, lists and structs no labels; Arrow says which values are none."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as parquet
import pytest

from mm_embed_kernels.identity import content_hash
from mm_embed_kernels.spec.source_spec import SourceSpec
from mm_resources.sources import Listed, Source, open_source
from mm_resources.sources.base import cast_value, is_missing
from tests.resources.places import Place

NAN = float("nan")
FIELDS = ("id", "label", "link", "group")
RECORD = {"text": "text", **{name: name for name in FIELDS}}


def source_of(uri: Path | str, schema: dict[str, str] | None = None, **spec: Any) -> Source:
    return open_source(SourceSpec(**{"name": "s", "modality": "text", "uri": str(uri), **spec}), schema or {})


def as_jsonl(path: Path, table: pa.Table) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in table.to_pylist()))


def as_parquet(path: Path, table: pa.Table) -> None:
    parquet.write_table(table, path)


def as_arrow(path: Path, table: pa.Table) -> None:
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)


def as_lance(path: Path, table: pa.Table) -> None:
    import lance

    lance.write_dataset(table, str(path))


WRITERS: dict[str, Callable[[Path, pa.Table], None]] = {
    "t.jsonl": as_jsonl, "t.parquet": as_parquet, "t.arrow": as_arrow, "t.lance": as_lance,
}  # fmt: skip


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("kind", [pa.float32(), pa.float64(), pa.string()])
def test_nan_in_a_record_is_no_value(tmp_path: Path, name: str, kind: pa.DataType) -> None:
    values = [NAN, None, 2.5] if pa.types.is_floating(kind) else ["nan", None, "NaT"]
    column = pa.array(values, kind)
    table = pa.table({"text": ["a", "b", "c"], **dict.fromkeys((*FIELDS, "score", "note"), column)})
    WRITERS[name](tmp_path / name, table)
    schema = {"score": "float", "note": "string"}
    items = list(source_of(tmp_path / name, schema, record=RECORD).list())
    none = pc.is_null(column, nan_is_null=True).to_pylist()
    texts = [None if missing else str(value) for missing, value in zip(none, values, strict=True)]
    assert [item.error for item in items] == [None] * 3
    for field in FIELDS[1:]:
        assert [getattr(item, field) for item in items] == texts
    assert [item.key for item in items] == [
        text or content_hash(content.encode()) for text, content in zip(texts, "abc", strict=True)
    ]
    assert [item.columns["note"] for item in items] == texts
    assert [item.columns["score"] for item in items] == ([None, None, 2.5] if none[0] else [None] * 3)


def test_nan_in_a_csv_is_none_but_in_the_text_itself(tmp_path: Path) -> None:
    """As pandas and NumPy spell it; `Nan` is a name."""
    (tmp_path / "t.csv").write_text(
        "text,label,score,seen,count,note\nnan,nan,NaN,NaT,nan,nan\nb,Nan,+NaN,nat,2.0,NAN\n"
    )
    schema = {"score": "float", "seen": "timestamp", "count": "int", "note": "string"}
    source = source_of(tmp_path / "t.csv", schema, record={"text": "text", "label": "label"})
    first, second = source.list()
    assert (first.error, first.label, source.fetch(first.uri, first.locator)) == (None, None, b"nan")
    assert first.columns == {"score": None, "seen": None, "count": None, "note": None}
    assert (second.error, second.label) == (None, "Nan")
    assert second.columns == {"score": None, "seen": None, "count": 2, "note": "NAN"}


def test_nan_in_a_side_table_of_text_is_none(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("words")
    (tmp_path / "table.tsv").write_text("file\tlabel\tlink\na.txt\tnan\tNaN\n")
    table = {"uri": str(tmp_path / "table.tsv"), "key": "file", "columns": ["label", "link"]}
    (item,) = source_of(tmp_path / "*.txt", table=table).list()
    assert (item.error, item.label, item.link) == (None, None, None)


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_nat_of_numpy_is_no_time(tmp_path: Path, unit: str) -> None:
    """Its number is below all times of Python, which refuses to convert it."""
    seen = pa.array([-(2**63), 0]).view(pa.timestamp(unit))
    as_arrow(tmp_path / "t.arrow", pa.table({"text": ["a", "b"], "seen": seen}))
    record = {"text": "text", "label": "seen"}
    first, second = source_of(tmp_path / "t.arrow", {"seen": "timestamp"}, record=record).list()
    assert (first.label, first.columns, first.error) == (None, {"seen": None}, None)
    assert second.columns == {"seen": datetime(1970, 1, 1, tzinfo=UTC)}


@pytest.mark.parametrize("value", [None, "", NAN, Decimal("NaN"), Decimal("sNaN"), -NAN])
def test_missing_values(value: Any) -> None:
    import pandas as pd

    assert is_missing(value)
    assert value == "" or str(value) == "sNaN" or pd.isna(value)  # pandas raises for a signaling NaN
    assert all(cast_value(value, kind) is None for kind in ("string", "int", "float", "bool", "timestamp"))


@pytest.mark.parametrize("value", [0, 0.0, False, "nan", b"", [], {}, [NAN], float("inf"), datetime.min])
def test_values_that_are_there(value: Any) -> None:
    assert not is_missing(value)


@pytest.mark.parametrize("name", ["t.jsonl", "t.parquet", "t.arrow"])
def test_nan_in_a_side_table(disk: Place, name: str) -> None:
    disk.put("data/1.txt", "data/2.txt", "data/nan", "data/None")
    # The first row stands twice, and the last one names no file.
    rows = {
        "file": ["1.txt", "1.txt", "2.txt", None],
        **{field: pa.array([NAN, NAN, 3.0, 4.0]) for field in ("label", "group", "score")},
    }
    WRITERS[name](Path(disk.root, name), pa.table(rows))
    table = {"uri": f"{disk.root}/{name}", "key": "file", "columns": ["label", "group", "score"]}
    found = disk.samples("data", table=table, schema={"score": "float"})
    assert {key: (item.label, item.group, item.columns, item.error) for key, item in found.items()} == {
        "1.txt": (None, None, {"score": None}, None),
        "2.txt": ("3.0", "3.0", {"score": 3.0}, None),
        "nan": (None, None, {}, None),
        "None": (None, None, {}, None),
    }


def test_nan_as_the_key_of_a_side_table(disk: Place) -> None:
    disk.put("data/nan")
    as_parquet(Path(disk.root, "t.parquet"), pa.table({"file": [NAN, NAN], "label": ["x", "y"]}))
    found = disk.samples("data", table={"uri": f"{disk.root}/t.parquet", "key": "file", "columns": ["label"]})
    assert {key: item.label for key, item in found.items()} == {"nan": None}


def archive(path: Path, parts: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as out:
        for name, data in parts.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            out.addfile(info, io.BytesIO(data))
    return path


def test_nan_in_a_part_of_an_archive(tmp_path: Path) -> None:
    parts = {
        "1.jpg": b"1", "1.json": b'{"label": NaN, "score": NaN, "note": NaN}',
        "2.jpg": b"2", "2.json": b'{"label": "nan", "score": 1, "note": "nan"}', "3.jpg": b"3", "3.cls": b"nan",
    }  # fmt: skip
    source = source_of(archive(tmp_path / "a.tar", parts), {"score": "float", "note": "string"})
    assert [(item.label, item.columns, item.error) for item in source.list()] == [
        (None, {"score": None, "note": None}, None),
        ("nan", {"score": 1.0, "note": "nan"}, None),
        ("nan", {}, None),
    ]


def test_class_numbers_that_pandas_wrote_as_floats(tmp_path: Path) -> None:
    """It has no integer that is missing."""
    features = {"info": {"features": {"label": {"_type": "ClassLabel", "names": ["cat", "dog"]}}}}
    schema = pa.schema(
        [("text", pa.string()), ("label", pa.float64())], {"huggingface": json.dumps(features)}
    )
    as_parquet(tmp_path / "t.parquet", pa.table([["a", "b", "c"], [1.0, NAN, 7.0]], schema=schema))
    items = source_of(tmp_path / "t.parquet", record={"text": "text", "label": "label"}).list()
    assert [(item.label, item.error) for item in items] == [("dog", None), (None, None), (None, None)]


# -- lists, structs and bytes


def refused(item: Listed) -> str:
    assert item.error is not None
    assert item.error.error_class == "schema_mismatch"
    assert "\n" not in item.error.message
    return item.error.message


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize(("value", "shape"), [(["x", "y"], "list"), ({"x": 1}, "struct")])
def test_a_list_or_struct_is_refused_as_a_label(
    tmp_path: Path, name: str, field: str, value: Any, shape: str
) -> None:
    WRITERS[name](tmp_path / name, pa.Table.from_pylist([{"text": "a", field: value}, {"text": "b"}]))
    first, second = source_of(tmp_path / name, record=RECORD).list()
    assert refused(first) == (
        f"the field {field!r} holds a {shape}, not a single value; name a field with one value per sample"
    )
    assert second.error is None


def test_a_list_is_refused_in_side_tables_and_archives(disk: Place, tmp_path: Path) -> None:
    disk.put("data/1.txt")
    as_jsonl(Path(disk.root, "t.jsonl"), pa.table({"file": ["1.txt"], "label": [["x"]]}))
    table = {"uri": f"{disk.root}/t.jsonl", "key": "file", "columns": ["label"]}
    assert "holds a list" in refused(disk.samples("data", table=table)["1.txt"])
    parts = {"1.jpg": b"1", "1.json": b'{"label": {"x": 1}}'}
    (item,) = source_of(archive(tmp_path / "a.tar", parts)).list()
    assert "holds a struct" in refused(item)


def test_lists_and_structs_in_a_column_of_the_user_are_json(tmp_path: Path) -> None:
    rows = [{"text": "a", "tags": ["Käse", None], "box": {"x": NAN, "at": datetime(2024, 1, 2)}}]
    as_parquet(tmp_path / "t.parquet", pa.Table.from_pylist(rows))
    schema = {"tags": "string", "box": "string"}
    (item,) = source_of(tmp_path / "t.parquet", schema, record={"text": "text"}).list()
    assert item.columns["tags"] == '["Käse", null]'
    assert json.loads(item.columns["box"]) == {"x": None, "at": "2024-01-02T00:00:00"}
    (item,) = source_of(tmp_path / "t.parquet", {"tags": "int"}, record={"text": "text"}).list()
    assert "is not a int" in refused(item)


def test_bytes_as_labels_are_text(tmp_path: Path) -> None:
    """Parquet files of older writers have no strings."""
    as_parquet(tmp_path / "t.parquet", pa.table({"text": ["a", "b"], "label": [b"cat", b"\xff"]}))
    good, bad = source_of(tmp_path / "t.parquet", record={"text": "text", "label": "label"}).list()
    assert good.label == "cat"
    assert "not UTF-8" in refused(bad)


# A moment after the year 9999 and one before the year 1, in each unit, and a time of no day.
_BEYOND = {
    "timestamp[s]": pa.array([2**62, 0]).view(pa.timestamp("s")),
    "timestamp[us, UTC]": pa.array([-(2**62), 0]).view(pa.timestamp("us", "UTC")),
    "date32": pa.array([2**31 - 1, 0], pa.int32()).view(pa.date32()),
    "date64": pa.array([2**62, 0]).view(pa.date64()),
    "time64": pa.array([2**62, 0]).view(pa.time64("us")),
    "list": pa.ListArray.from_arrays(
        pa.array([0, 1, 2], pa.int32()), pa.array([2**62, 0]).view(pa.timestamp("us"))
    ),
}


@pytest.mark.parametrize("kind", _BEYOND)
def test_a_time_that_python_lacks_costs_its_own_row(tmp_path: Path, kind: str) -> None:
    as_arrow(tmp_path / "t.arrow", pa.table({"text": ["a", "b"], "id": ["1", "2"], "when": _BEYOND[kind]}))
    record = {"text": "text", "id": "id"}
    items = list(source_of(tmp_path / "t.arrow", {"when": "string"}, record=record).list())
    assert [item.error and item.error.error_class for item in items] == ["bad_record", None]
    # A column that the spec does not name costs nothing.
    assert [item.error for item in source_of(tmp_path / "t.arrow", record=record).list()] == [None, None]


@pytest.mark.parametrize("zone", ["Mars/Phobos", "+25:00"])
@pytest.mark.parametrize("name", ["t.arrow", "t.parquet"])
def test_a_zone_that_does_not_exist(tmp_path: Path, name: str, zone: str) -> None:
    """The moment is that of UTC, whatever the zone: Arrow stores it so."""
    when = pa.array([86_400_000_000]).view(pa.timestamp("us", zone))
    WRITERS[name](tmp_path / name, pa.table({"text": ["a"], "when": when}))
    (item,) = source_of(tmp_path / name, {"when": "timestamp"}, record={"text": "text"}).list()
    assert item.error is None
    assert item.columns["when"] == datetime(1970, 1, 2, tzinfo=UTC)
