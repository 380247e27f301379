"""SQL over published tables equals DuckDB's answer on the same rows in memory."""

from __future__ import annotations

import duckdb
import numpy as np
import pytest

from mm_embed_kernels.embedders import create
from mm_embed_kernels.errors import UserError
from mm_resources.catalog import Catalog
from mm_resources.cell import Cell
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
