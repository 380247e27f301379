"""Queries of people: one at a time, over what they are given, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as ds
import pytest

from mm_embed_kernels import sql_users

ROWS = pa.table({"label": ["x", "y", "x"], "size": [1, 2, 3]})


def run(statement: str) -> list[dict[str, object]]:
    with sql_users.query_locked(statement, rows=ds.dataset(ROWS)) as reader:
        found: list[dict[str, object]] = reader.read_all().to_pylist()
        return found


def test_a_query_is_answered() -> None:
    assert run("SELECT label, sum(size)::INT AS n FROM rows GROUP BY 1 ORDER BY 1") == [
        {"label": "x", "n": 4},
        {"label": "y", "n": 2},
    ]
    assert run("WITH a AS (FROM rows) SELECT count(*) AS n FROM a") == [{"n": 3}]
    assert run("FROM rows LIMIT 1") == [{"label": "x", "size": 1}]


def test_a_table_is_read_as_often_as_a_query_needs() -> None:
    twice = "WITH a AS NOT MATERIALIZED (FROM rows) SELECT count(*) AS n FROM a JOIN a AS b USING (label)"
    assert run(twice) == [{"n": 5}]
    assert run("SELECT (SELECT count(*) FROM rows) + (SELECT max(size) FROM rows) AS n") == [{"n": 6}]


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT * FROM read_text('{path}')",
        "SELECT * FROM '{path}'",
        "SELECT * FROM read_csv('{path}')",
        "SELECT * FROM glob('{path}')",
        "COPY (SELECT 1) TO '{path}'",
        "ATTACH '{path}'",
        "INSTALL httpfs",
        "LOAD httpfs",
        "SET enable_external_access = true",
        "PRAGMA threads=9",
        "CREATE TABLE t AS SELECT 1",
        "SELECT 1; SELECT 2",
        "SELECT getenv('HOME')",
        "SELECT * FROM ROWS_OF_PYTHON",
        "",
        "SELEC 1",
    ],
)
def test_all_else_is_refused_in_one_line(statement: str, tmp_path: Path) -> None:
    (path := tmp_path / "secret.csv").write_text("secret,1\n")
    with pytest.raises(sql_users.BadStatement) as caught:
        run(statement.format(path=path))
    assert "\n" not in str(caught.value)
    assert path.read_text() == "secret,1\n"


def test_variables_of_python_are_no_tables() -> None:
    ROWS_OF_PYTHON = ROWS  # noqa: F841
    with pytest.raises(sql_users.BadStatement, match="does not exist"):
        run("SELECT * FROM ROWS_OF_PYTHON")
