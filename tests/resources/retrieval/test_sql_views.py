"""SQL over published tables equals DuckDB's answer on the same rows in memory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import duckdb
import numpy as np
import pytest

from mm_embed_kernels.embedders import create
from mm_embed_kernels.errors import UserError
from mm_resources.catalog import Catalog
from mm_resources.cell import Cell
from mm_resources.retrieval.sql_database import _named_tables, save_features
from mm_resources.retrieval.sql_views import query_features
from tests.resources.published import publish, register

TABLE = "features('d@v1', 'text')"


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    folder = tmp_path_factory.mktemp("sql")
    catalog = Catalog.open(folder / "store")
    register(catalog, folder, "d", "v1", ["text"])
    vectors = np.eye(8, dtype=np.float32)[np.arange(40) % 8]
    rows = [
        {
            "sample": str(i),
            "text": f"word {i}",
            "label": None if i % 7 == 0 else "ab"[i % 2],
            "vector": vectors[i],
        }
        for i in range(40)
    ]
    publish(catalog, Cell("d", "v1", "text"), rows, create("wordllama"))
    return catalog


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT label, count(*) AS n FROM {t} GROUP BY 1",
        "SELECT count(*) AS n FROM {t} WHERE label <> 'a'",
        "SELECT count(*) AS n FROM {t} WHERE label IS DISTINCT FROM 'a'",
        "SELECT count(*) AS n FROM {t} WHERE label NOT IN ('a', 'c') OR text LIKE '%3'",
        "SELECT count(*) AS n FROM {t} WHERE created_at > TIMESTAMP '2020-01-01' AND len(passed) >= 0",
        "SELECT count(*) AS n FROM {t} WHERE list_cosine_similarity(vector::FLOAT[], [1,0,0,0,0,0,0,0]::FLOAT[]) > 0.9",
        "FROM {t}",
        "SELECT COLUMNS('te.t|la.el') FROM {t}",
        "SELECT * EXCLUDE (vector) FROM {t}",
        "WITH a AS NOT MATERIALIZED (FROM {t}) SELECT count(*) AS n FROM a JOIN a AS b USING (label)",
        "SELECT a.text FROM {t} AS a ANTI JOIN (SELECT text FROM {t} WHERE label = 'a') AS b USING (text)",
    ],
)
def test_answers_are_those_of_the_rows_in_memory(catalog: Catalog, statement: str) -> None:
    primary = catalog.registry.published_pin("d@v1", "text").primary
    rows = catalog.features.dataset(primary.table, primary.lance_version).to_table()  # noqa: F841 - read by DuckDB
    expected = duckdb.sql(statement.format(t="rows")).to_arrow_table()
    with query_features(catalog, statement.format(t=TABLE)) as found:
        answer = found.read_all()
    assert answer.column_names == expected.column_names
    assert sorted(map(str, answer.to_pylist())) == sorted(map(str, expected.to_pylist()))


def test_what_is_not_published_is_named(catalog: Catalog) -> None:
    with pytest.raises(UserError, match="names no table"), query_features(catalog, "SELECT 1"):
        pass
    with pytest.raises(UserError, match="v9"), query_features(catalog, "FROM features('d@v9', 'text')"):
        pass


def test_a_stage_that_the_pin_does_not_name_is_an_error(catalog: Catalog) -> None:
    with (
        pytest.raises(UserError, match="d@v1 text was published without curated_samples"),
        query_features(catalog, "FROM curated_samples('d@v1', 'text')"),
    ):
        pass


def test_a_file_of_the_tables_is_opened_by_duckdb_alone(catalog: Catalog, tmp_path: Path) -> None:
    file = tmp_path / "d.duckdb"
    (described,) = save_features(catalog, ["d@v1"], file)
    assert (described["table_name"], described["rows"]) == ("d_v1_text", 40)
    script = (
        "import duckdb, sys; c = duckdb.connect(sys.argv[1], read_only=True); "
        "print(c.sql('select label, count(*) from d_v1_text group by 1 order by 1 nulls last').fetchall()); "
        "print(c.sql('select table_name, rows, pin from published').fetchall()); "
        "print(c.sql('select array_cosine_similarity(a.vector, b.vector)::int from d_v1_text a, d_v1_text b "
        "where a.key = $$0$$ and b.key = $$8$$').fetchall())"
    )
    # Nothing of the project can be imported there.
    shown = subprocess.run(
        [sys.executable, "-I", "-c", script, str(file)],
        cwd=tmp_path,
        text=True,
        capture_output=True,
        check=True,
    )
    assert shown.stdout.splitlines() == [
        "[('a', 17), ('b', 17), (None, 6)]",
        "[('d_v1_text', 40, 1)]",
        "[(1,)]",
    ]
    # No column of a feature row needs quotes.
    with duckdb.connect(str(file), read_only=True) as connection:
        names = [str(row[0]) for row in connection.sql("describe d_v1_text").fetchall()]
        assert len(connection.sql(f"select {', '.join(names)} from d_v1_text").fetchall()) == 40
    with pytest.raises(UserError, match="exists; name another file"):
        save_features(catalog, [], file)
    with pytest.raises(UserError, match="cannot be written"):
        save_features(catalog, [], tmp_path / "no folder" / "d.duckdb")
    assert [path.name for path in tmp_path.iterdir()] == ["d.duckdb"]


def test_names_of_tables_need_no_quotes_and_differ() -> None:
    pins = [
        SimpleNamespace(
            dataset=dataset,
            version=version,
            modality="text",
            tables=[
                SimpleNamespace(primary=True, embedder="e"),
                SimpleNamespace(primary=False, embedder="st:/a b"),
            ],
        )
        for dataset, version in (("a-b", "v1"), ("A", "b_v1"), ("2", "1.0"))
    ]
    assert list(_named_tables(pins)) == [  # type: ignore[arg-type]
        "a_b_v1_text", "a_b_v1_text_st_a_b", "a_b_v1_text_2", "a_b_v1_text_st_a_b_2", "t_2_1_0_text", "t_2_1_0_text_st_a_b",
    ]  # fmt: skip
