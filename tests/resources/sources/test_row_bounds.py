"""Small tables that stand for large ones: a row, or what Python holds at a time, has a bound known before."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

import mm_resources.sources.lines
from mm_resources.sources import arrow_bodies, rows
from tests.resources.sources.test_rows import read, source_of

LONG = "x" * 5_000


def repeated(count: int) -> pa.DictionaryArray:
    """Rows that are all one text, which is stored once."""
    return pa.DictionaryArray.from_arrays(pa.array([0] * count, pa.int32()), pa.array([LONG]))


@pytest.mark.parametrize("ending", ["parquet", "arrow"])
def test_a_text_that_is_stored_once_for_many_rows(
    ending: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows, "_REPEATED_BYTES", 100_000)
    monkeypatch.setattr(rows, "_BATCH_BYTES", 20_000)
    held: list[int] = []
    parts = rows._parts

    def watch(batch: pa.RecordBatch) -> Any:
        for part in parts(batch):
            held.append(sum(len(row["text"]) for row in part.to_pylist()))
            yield part

    monkeypatch.setattr(rows, "_parts", watch)
    table = pa.table({"id": [str(i) for i in range(500)], "text": repeated(500)})
    path = tmp_path / f"t.{ending}"
    if ending == "parquet":
        parquet.write_table(table, path, store_schema=False)
    else:
        with pa.ipc.new_file(path, table.schema) as writer:
            writer.write_table(table)
    assert path.stat().st_size < 5 * len(LONG)
    source = source_of(path, text="text", id="id")
    items = list(source.list())
    assert [item.key for item in items] == [str(i) for i in range(500)]
    assert max(held) <= 20_000 < sum(held) == 500 * len(LONG)
    assert read(source, items[499]) == LONG.encode()


def test_runs_of_one_value_are_cut() -> None:
    runs = pa.RunEndEncodedArray.from_arrays(pa.array([3, 1_000], pa.int32()), pa.array(["short", LONG]))
    batch = pa.record_batch({"text": runs.slice(1)})
    sizes = rows._shared_sizes(batch["text"])
    assert sizes is not None
    assert sizes.tolist() == [5, 5, *[5_000] * 997]


def test_shared_values_of_other_types_have_sizes() -> None:
    numbers = pa.DictionaryArray.from_arrays(pa.array([1, None, 0], pa.int8()), pa.array([7, 8], pa.int64()))
    assert rows._shared_sizes(numbers).tolist() == [8, 8, 8]  # type: ignore[union-attr]
    empty = pa.DictionaryArray.from_arrays(pa.array([None, None], pa.int8()), pa.array([], pa.string()))
    assert rows._shared_sizes(empty).tolist() == [0, 0]  # type: ignore[union-attr]
    assert rows._shared_sizes(pa.array(["a"])) is None


def test_a_row_of_a_number_that_is_repeated_without_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows, "_MOST_ROW_VALUES", 10_000)
    for name, count in (("good", 10_000), ("bad", 10_001)):
        many = pa.ListArray.from_arrays(pa.array([0, count], pa.int32()), pa.array(np.zeros(count, "int64")))
        parquet.write_table(pa.table({"text": ["a"], "many": many}), tmp_path / f"{name}.parquet")
    assert (tmp_path / "bad.parquet").stat().st_size < 5_000
    found = {
        item.uri.rpartition("/")[2]: item.error and item.error.error_class
        for item in source_of(tmp_path / "*.parquet", text="text").list()
    }
    assert found == {"bad.parquet": "decompression_bomb", "good.parquet": None}


def test_a_column_that_unpacks_to_far_more_than_its_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows, "BOMB_BYTES", 1 << 20)
    table = pa.table({"text": ["x" * (4 << 20)]})
    parquet.write_table(table, tmp_path / "t.parquet", compression="zstd", use_dictionary=False)
    (item,) = source_of(tmp_path / "t.parquet", text="text").list()
    assert item.error is not None
    assert item.error.error_class == "decompression_bomb"


def test_a_line_of_more_values_than_a_record_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mm_resources.sources.lines, "_MOST_VALUES", 1_000)
    lines = [{"text": "a"}, {"text": "b", "more": [{}] * 1_000}, {"text": "c, " * 300}]
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    items = list(source_of(tmp_path / "t.jsonl", text="text").list())
    assert [item.error and item.error.error_class for item in items] == [None, "bad_record", None]


@pytest.mark.parametrize("middle", ["x," * 2_000, 'x,"\n",' * 2_000], ids=["in a line", "over lines"])
def test_a_row_of_more_fields_than_a_record_has(
    middle: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mm_resources.sources.lines, "_MOST_VALUES", 1_000)
    (tmp_path / "t.csv").write_text(f"text\na\n{middle}\nb\n")
    first, second, *_, last = source_of(tmp_path / "t.csv", text="text").list()
    assert (first.error, last.error) == (None, None)
    assert second.error is not None
    assert (second.error.error_class, "8,000" in second.error.message) == ("bad_record", False)
    assert "fields" in second.error.message


@pytest.mark.parametrize("form", ["file", "stream"])
@pytest.mark.parametrize("codec", ["zstd", "lz4", None])
@pytest.mark.parametrize("column", ["text", "dictionary"])
def test_an_arrow_batch_that_unpacks_to_far_more_than_its_bytes(
    column: str, codec: str | None, form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arrow_bodies, "BOMB_BYTES", 1 << 20)
    monkeypatch.setattr(arrow_bodies, "BOMB_RATIO", 20)
    texts = pa.array(["x" * (2 << 20)])
    if column == "dictionary":
        texts = texts.dictionary_encode()
    table = pa.table({"text": texts})
    path = tmp_path / "t.arrow"
    options = pa.ipc.IpcWriteOptions(compression=codec)
    new = pa.ipc.new_file if form == "file" else pa.ipc.new_stream
    with new(path, table.schema, options=options) as writer:
        writer.write_table(table)
    (item,) = source_of(path, text="text").list()
    assert (item.error and item.error.error_class) == ("decompression_bomb" if codec else None)


def test_an_arrow_body_whose_length_lies(tmp_path: Path) -> None:
    """8 bytes in front of a buffer say how long it is: 64 GiB here."""
    table = pa.table({"text": ["x" * 10_000]})
    path = tmp_path / "t.arrow"
    with pa.ipc.new_stream(path, table.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as writer:
        writer.write_table(table)
    data = path.read_bytes()
    place = data.rindex((10_000).to_bytes(8, "little"))
    path.write_bytes(data[:place] + (64 << 30).to_bytes(8, "little") + data[place + 8 :])
    (item,) = source_of(path, text="text").list()
    assert item.error is not None
    assert item.error.error_class == "decompression_bomb"
