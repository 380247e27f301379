from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from mm_embed_kernels.contracts import Contract, ContractError, field
from mm_resources.cell import Cell
from mm_resources.storage.lance_errors import Fenced
from mm_resources.storage.store import Store
from mm_resources.tables.stage_refs import StageMeta
from mm_resources.tables.stage_tables import NotMaterialized, StageTables
from mm_resources.tables.stage_writer import WrittenRows

CELL = Cell("birds", "v1", "text")
CONTRACT = Contract(
    "numbers",
    pa.schema(
        [
            field("key", pa.string(), "key", required=True),
            field("n", pa.int64(), "number"),
            field("seconds", pa.float64(), "time"),
        ]
    ),
    key="key",
    digest=("key", "n"),
)


@pytest.fixture
def tables(tmp_path: Path) -> StageTables:
    return StageTables(Store(str(tmp_path)))


def meta_of(written: WrittenRows, **changed: Any) -> StageMeta:
    values: dict[str, Any] = {
        "data_version": written.digest, "inputs": "i", "rows": written.rows, "row_count": written.rows, "failures": 0, "failed": 1, "retryable": 0, "environment": "e",
        "blocked": "", "work": {"probe": 3}, "run_id": "r1", "at": "2024-01-01T00:00:00+00:00", "summary": {"naïve": [1, None]},
    }  # fmt: skip
    return StageMeta(**{**values, **changed})


def rows(*pairs: tuple[str, int], seconds: float = 0.5) -> pa.Table:
    return pa.table(
        {"key": [key for key, _ in pairs], "n": [n for _, n in pairs], "seconds": [seconds] * len(pairs)}
    )


def publish(
    tables: StageTables, *parts: pa.Table, asset: str = "segments", fence: int | None = None, **changed: Any
) -> StageMeta:
    fence = tables.fence(asset, CELL) if fence is None else fence
    written = tables.write(asset, CELL, CONTRACT, parts)
    meta = meta_of(written, **changed)
    tables.commit(asset, CELL, written, meta, fence)
    return meta


def test_meta_travels_with_its_rows(tables: StageTables) -> None:
    assert tables.meta("segments", CELL) is None
    assert tables.state("segments", CELL) is None
    meta = publish(tables, rows(("a", 1), ("b", 2)), rows(("c", 3)), blocked="too many failed")
    assert tables.meta("segments", CELL) == meta
    assert (meta.rows, meta.blocked, meta.summary) == (3, "too many failed", {"naïve": [1, None]})
    read = tables.read("segments", CELL)
    assert read.schema.equals(CONTRACT.bare)
    assert read.read_all().to_pylist() == [
        {"key": key, "n": n, "seconds": 0.5} for key, n in (("a", 1), ("b", 2), ("c", 3))
    ]
    assert tables.meta("segments", Cell("birds", "v2", "text")) is None
    assert tables.meta("raw_assets", CELL) is None


def test_read_chosen_columns_and_rows(tables: StageTables) -> None:
    publish(tables, rows(("a", 1), ("b", 2)))
    assert tables.read("segments", CELL, ["n"], "key = 'b'").read_all().to_pylist() == [{"n": 2}]


def test_earlier_versions_stay_readable(tables: StageTables) -> None:
    publish(tables, rows(("a", 1)))
    before = tables.state("segments", CELL)
    assert before is not None
    publish(tables, rows(("b", 2)), run_id="r2")
    assert tables.read("segments", CELL).read_all()["key"].to_pylist() == ["b"]
    assert tables.read("segments", CELL, at=before.place).read_all()["key"].to_pylist() == ["a"]
    meta = tables.meta("segments", CELL)
    assert meta is not None
    assert meta.run_id == "r2"


def test_no_rows(tables: StageTables) -> None:
    meta = publish(tables)
    assert meta.rows == 0
    assert tables.meta("segments", CELL) == meta
    assert tables.read("segments", CELL).read_all().num_rows == 0


def test_a_fence_is_no_publication(tables: StageTables) -> None:
    tables.fence("segments", CELL)
    assert tables.meta("segments", CELL) is None
    with pytest.raises(NotMaterialized, match=r"segments of birds@v1\|text is not materialized"):
        tables.read("segments", CELL)
    with pytest.raises(NotMaterialized, match="not materialized"):
        tables.read("raw_assets", CELL)


def test_data_version_follows_content(tables: StageTables) -> None:
    pairs = [(f"k{i}", i) for i in range(100)]
    one = publish(tables, rows(*pairs)).data_version
    assert publish(tables, rows(*pairs[60:], seconds=9.0), rows(*pairs[:60])).data_version == one
    assert publish(tables, rows(*pairs[:-1], ("k99", 98))).data_version != one
    assert publish(tables, rows(*pairs[:-1])).data_version != one


def test_the_late_run_is_fenced(tables: StageTables) -> None:
    fence = tables.fence("segments", CELL)
    publish(tables, rows(("quick", 1)), fence=fence)
    with pytest.raises(Fenced):
        publish(tables, rows(("late", 2)), fence=fence, run_id="late")
    assert tables.read("segments", CELL).read_all()["key"].to_pylist() == ["quick"]
    meta = tables.meta("segments", CELL)
    assert meta is not None
    assert meta.run_id == "r1"


def test_rows_of_the_wrong_shape_are_not_published(tables: StageTables) -> None:
    publish(tables, rows(("a", 1)))
    with pytest.raises((ContractError, OSError, ValueError), match="nonsense"):
        publish(tables, rows(("b", 2)), rows(("c", 3)).append_column("nonsense", pa.array([1])))
    assert tables.read("segments", CELL).read_all()["key"].to_pylist() == ["a"]
