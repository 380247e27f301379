from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mm_embed_kernels import sql
from mm_embed_kernels.errors import UserError
from mm_embed_kernels.sql import RowDigest

SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("n", pa.int64()),
        ("flag", pa.bool_()),
        ("tags", pa.list_(pa.string())),
        ("text", pa.string()),
    ]
)
COLUMNS = ("key", "n", "flag", "tags")
VALUES = {
    "n": st.none() | st.integers(-(2**63), 2**63 - 1),
    "flag": st.none() | st.booleans(),
    "tags": st.none() | st.lists(st.none() | st.text(max_size=3), max_size=3),
}
rows_of_cells = st.lists(
    st.fixed_dictionaries({"key": st.text(max_size=6), **VALUES, "text": st.text(max_size=3)}),
    min_size=1,
    max_size=12,
    unique_by=lambda row: row["key"],
)


def digest(rows: list[dict[str, Any]], cuts: list[int] = ()) -> str:  # type: ignore[assignment]
    state = RowDigest(COLUMNS)
    edges = [0, *sorted(cut % (len(rows) + 1) for cut in cuts), len(rows)]
    for start, end in zip(edges, edges[1:], strict=False):
        state.update(pa.Table.from_pylist(rows[start:end], schema=SCHEMA))
    return state.hexdigest()


@settings(max_examples=40)
@given(rows_of_cells, st.randoms(use_true_random=False), st.lists(st.integers(0, 100), max_size=3))
def test_order_and_batches_do_not_matter(rows: list[dict[str, Any]], random: Any, cuts: list[int]) -> None:
    shuffled = random.sample(rows, len(rows))
    assert digest(shuffled, cuts) == digest(rows)


@settings(max_examples=60)
@given(rows_of_cells, st.data())
def test_a_changed_cell_differs(rows: list[dict[str, Any]], data: st.DataObject) -> None:
    row = data.draw(st.integers(0, len(rows) - 1))
    column = data.draw(st.sampled_from(sorted(VALUES)))
    value = data.draw(
        VALUES[column].filter(
            lambda value: value != rows[row][column] or type(value) is not type(rows[row][column])
        )
    )
    changed = [{**each, column: value} if i == row else each for i, each in enumerate(rows)]
    assert digest(changed) != digest(rows)


ROW = {"key": "a", "n": 1, "flag": True, "tags": ["x"], "text": ""}


@pytest.mark.parametrize(
    "other",
    [
        pytest.param([{**ROW, "n": None}], id="null"),
        pytest.param([{**ROW, "key": "null"}], id="word"),
        pytest.param([{**ROW, "tags": []}], id="empty list"),
        pytest.param([{**ROW, "tags": [None]}], id="list of null"),
        pytest.param([{**ROW, "tags": None}], id="null list"),
        pytest.param([], id="row missing"),
        pytest.param([ROW, {**ROW, "key": "b"}], id="row added"),
        pytest.param([ROW, ROW, ROW], id="row three times"),
    ],
)
def test_these_differ(other: list[dict[str, Any]]) -> None:
    assert digest(other) != digest([ROW])


def test_cells_swapped_between_rows_differ() -> None:
    one = [{**ROW, "key": "a", "n": 1}, {**ROW, "key": "b", "n": 2}]
    other = [{**ROW, "key": "a", "n": 2}, {**ROW, "key": "b", "n": 1}]
    assert digest(one) != digest(other)


def test_other_columns_do_not_count() -> None:
    assert digest([{**ROW, "text": "other"}]) == digest([ROW])


def test_digest_is_the_same_in_every_run() -> None:
    """Data versions are compared between runs; the value is written out so that a new DuckDB cannot change it unseen."""
    assert digest([ROW, {**ROW, "key": "b"}]) == "2-4dc1130926bac987a6e28dc271d7e3dd"
    assert digest([]) == f"0-{0:032x}"


def test_query_streams_and_cleans_up() -> None:
    numbers = pa.table({"n": list(range(50_000))})
    with sql.query("SELECT n * 2 AS n FROM numbers WHERE n % 2 = 0", numbers=numbers) as reader:
        sizes = [batch.num_rows for batch in reader]
    assert sum(sizes) == 25_000
    assert max(sizes) <= sql.BATCH_ROWS
    assert sql.fetch("SELECT sum(n) AS s FROM a JOIN b USING (n)", a=numbers, b=numbers.to_reader())[
        "s"
    ].to_pylist() == [1249975000]


def test_query_spills_within_its_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MM_SQL_MEMORY", "64MB")
    rows = pa.table(
        {"n": pa.array(range(1_000_000)), "text": pa.array([f"{i:064d}" for i in range(1_000_000)])}
    )
    with sql.query("SELECT * FROM rows ORDER BY text DESC", rows=rows) as reader:
        first = next(reader)
        assert first["n"][0].as_py() == 999_999
        assert first.num_rows + sum(batch.num_rows for batch in reader) == 1_000_000


def test_a_database_serves_one_statement_after_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sql, "_idle", {})
    monkeypatch.delenv("MM_SQL_MEMORY", raising=False)
    limit = "SELECT current_setting('memory_limit') AS it, (SELECT count(*) FROM duckdb_views() WHERE view_name = 'rows') AS views"
    assert sql.fetch(limit, rows=pa.table({"n": [1]})).to_pylist() == [{"it": "488.2 MiB", "views": 1}]
    monkeypatch.setenv("MM_SQL_MEMORY", "64MB")
    assert sql.fetch(limit).to_pylist() == [{"it": "61.0 MiB", "views": 0}]
    with sql.query("SELECT 1 AS n") as outer:
        assert sql.fetch("SELECT 2 AS n")["n"].to_pylist() == [2]
        assert outer.read_all()["n"].to_pylist() == [1]
    assert [len(idle) for idle in sql._idle.values()] == [2]


def test_a_database_that_a_result_still_holds_is_not_used_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sql, "_idle", {})
    with sql.query("SELECT md5(i::VARCHAR) AS text FROM range(1000000) t(i) ORDER BY text") as reader:
        reader.read_next_batch()
    with pytest.raises(duckdb.Error), sql.query("SELECT nothing"):
        pass
    assert [len(idle) for idle in sql._idle.values()] == [0]


@settings(max_examples=40)
@given(st.lists(st.integers(0, 5), max_size=6), st.lists(st.integers(0, 5), max_size=6))
def test_streams_stand_beside_each_other_whatever_their_batches(left: list[int], right: list[int]) -> None:
    rows = sum(left)
    values = pa.table({"a": pa.array(range(rows), pa.int64())})
    ends = [sum(left[:n]) for n in range(len(left) + 1)]
    tables = [values.slice(start, end - start) for start, end in zip(ends, ends[1:], strict=False)]
    cuts = sorted({min(sum(right[:n]), rows) for n in range(len(right) + 1)} | {rows})
    schema = pa.schema([("b", pa.int64())])
    batches = [
        pa.record_batch([pa.array(range(a, b), pa.int64())], schema=schema)
        for a, b in zip([0, *cuts], cuts, strict=False)
    ]
    found = list(sql.append_columns(tables, pa.RecordBatchReader.from_batches(schema, batches)))
    assert [table.num_rows for table in found] == left
    assert [
        pair for table in found for pair in zip(table["a"].to_pylist(), table["b"].to_pylist(), strict=True)
    ] == [(n, n) for n in range(rows)]


@pytest.mark.parametrize(("rows", "line"), [(2, "the second stream ends"), (4, "the first stream ends")])
def test_streams_of_unequal_length_do_not_stand_beside_each_other(rows: int, line: str) -> None:
    more = pa.table({"b": list(range(rows))}).to_reader()
    with pytest.raises(ValueError, match=line):
        list(sql.append_columns([pa.table({"a": [1, 2, 3]})], more))


AT_ONCE = "SELECT list(md5(i::VARCHAR)) AS text FROM range(2_000_000) t(i)"
LATER = (
    "SELECT repeat('x', CASE WHEN i > 100_000 THEN 10_000_000 ELSE 1 END) AS text FROM range(110_000) t(i)"
)


def read_directly(statement: str) -> None:
    with sql.query(statement) as reader:
        reader.read_all()


def through_a_generator(statement: str) -> pa.RecordBatchReader:
    def batches() -> Iterator[pa.RecordBatch]:
        with sql.query(statement) as reader:
            yield from reader

    schema = sql.fetch(f"FROM ({statement}) LIMIT 0").schema
    return pa.RecordBatchReader.from_batches(schema, batches())


def read_by_a_statement(statement: str) -> None:
    sql.fetch("SELECT count(text) FROM rows", rows=through_a_generator(statement))


def read_by_lance(statement: str) -> None:
    import lance

    with sql.typed_errors(), tempfile.TemporaryDirectory() as folder:
        lance.write_dataset(through_a_generator(statement), f"{folder}/rows.lance")


@pytest.mark.parametrize("read", [read_directly, read_by_a_statement, read_by_lance])
@pytest.mark.parametrize("statement", [AT_ONCE, LATER], ids=["at once", "later"])
def test_lack_of_memory_has_a_type_wherever_it_is_met(
    monkeypatch: pytest.MonkeyPatch, read: Callable[[str], None], statement: str
) -> None:
    monkeypatch.setenv("MM_SQL_MEMORY", "20MB")
    with pytest.raises(sql.OutOfMemory, match="Out of Memory Error"):
        read(statement)


def test_other_errors_keep_their_type() -> None:
    with pytest.raises(duckdb.BinderException), sql.query("SELECT nothing"):
        pass
    with pytest.raises(KeyError), sql.query("SELECT 1"):
        raise KeyError("from the reader")


def failing_stream(error: Exception) -> pa.RecordBatchReader:
    schema = pa.schema([("n", pa.int64())])

    def batches() -> Iterator[pa.RecordBatch]:
        yield pa.record_batch({"n": [1]}, schema=schema)
        raise error

    return pa.RecordBatchReader.from_batches(schema, batches())


@pytest.mark.parametrize("error", [ConnectionError("no answer"), UserError("no such column")])
@pytest.mark.parametrize("statement", ["FROM s", "SELECT sum(n) FROM s"])
def test_the_error_of_a_stream_is_raised_as_it_is(error: Exception, statement: str) -> None:
    """DuckDB's own error would be one of the program, with a traceback."""
    with pytest.raises(type(error)) as raised:
        sql.fetch(statement, s=failing_stream(error))
    assert raised.value is error

    def outer() -> Iterator[pa.RecordBatch]:
        with sql.query(statement, s=failing_stream(error)) as reader:
            yield from reader

    with pytest.raises(type(error)) as raised:
        sql.fetch("FROM t", t=pa.RecordBatchReader.from_batches(pa.schema([("n", pa.int64())]), outer()))
    assert raised.value is error
