from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from mm_embed_kernels.contracts import Contract, ContractError, field
from mm_embed_kernels.sql import RowDigest
from mm_resources.cell import Cell
from mm_resources.storage import lance_datasets
from mm_resources.storage.lance_errors import Fenced
from mm_resources.storage.store import Store
from mm_resources.tables.stage_tables import StageMeta, StageTables

SCHEMA = pa.schema([("n", pa.int64())])
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
def uri(tmp_path: Path) -> str:
    return str(tmp_path / "table.lance")


@pytest.fixture
def tables(tmp_path: Path) -> StageTables:
    return StageTables(Store(str(tmp_path)))


def together(count: int, work: Callable[[int], Any]) -> list[Any]:
    """`work(0..count - 1)` in threads that begin at once."""
    barrier = threading.Barrier(count)

    def begin(i: int) -> Any:
        barrier.wait()
        return work(i)

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(begin, range(count)))


def batches(*values: int) -> list[pa.RecordBatch]:
    return pa.table({"n": pa.array(values, pa.int64())}).to_batches()


def numbers(uri: str, **options: Any) -> list[int]:
    found: list[int] = (
        lance_datasets.reader(lance_datasets.open_dataset(uri), SCHEMA, **options).read_all()["n"].to_pylist()
    )
    return found


def test_absent_reads_as_empty(uri: str) -> None:
    assert lance_datasets.open_dataset(uri) is None
    assert numbers(uri) == []
    assert lance_datasets.reader(None, CONTRACT.bare, ["n"]).schema.names == ["n"]


def test_create_twice(uri: str) -> None:
    assert lance_datasets.create(uri, SCHEMA, batches(1, 2))
    assert not lance_datasets.create(uri, SCHEMA, batches(3))
    assert numbers(uri) == [1, 2]
    assert numbers(uri, where="n > 1") == [2]


@pytest.mark.parametrize("round_", range(5))
def test_exactly_one_of_many_creates_wins(uri: str, round_: int) -> None:
    """Frozen listings and the first append to a new table hang on it."""
    won = together(8, lambda i: lance_datasets.create(uri, SCHEMA, batches(i)))
    assert won.count(True) == 1
    assert numbers(uri) == [won.index(True)]
    dataset = lance_datasets.open_dataset(uri)
    assert dataset is not None
    assert dataset.version == 1


def test_an_interrupted_create_leaves_nothing(uri: str) -> None:
    def breaks_off() -> Iterator[pa.RecordBatch]:
        yield from batches(1)
        raise ValueError("the source broke")

    with pytest.raises((OSError, ValueError), match="the source broke"):
        lance_datasets.create(uri, SCHEMA, breaks_off())
    assert lance_datasets.open_dataset(uri) is None
    assert lance_datasets.create(uri, SCHEMA, batches(2))
    assert numbers(uri) == [2]


def test_overwrite_behind_a_fence(uri: str) -> None:
    fence = lance_datasets.fence(uri, SCHEMA)
    assert numbers(uri) == []
    version = lance_datasets.overwrite(uri, SCHEMA, batches(1, 2), fence, "one")
    assert version > fence
    assert lance_datasets.fence(uri, SCHEMA) == version
    lance_datasets.overwrite(uri, SCHEMA, batches(3), version, "two")
    assert numbers(uri) == [3]
    earlier = lance_datasets.open_dataset(uri, version)
    assert earlier is not None
    assert earlier.to_table()["n"].to_pylist() == [1, 2]


def test_a_stale_fence_overwrites_nothing(uri: str) -> None:
    fence = lance_datasets.fence(uri, SCHEMA)
    lance_datasets.overwrite(uri, SCHEMA, batches(1), fence, "the quick one")
    with pytest.raises(Fenced, match="another run"):
        lance_datasets.overwrite(uri, SCHEMA, batches(2), fence, "the late one")
    assert numbers(uri) == [1]


def test_exactly_one_of_many_overwrites_wins(uri: str) -> None:
    fence = lance_datasets.fence(uri, SCHEMA)

    def publish(i: int) -> bool:
        try:
            lance_datasets.overwrite(uri, SCHEMA, batches(i), fence, f"writer {i}")
        except Fenced:
            return False
        return True

    won = together(6, publish)
    assert won.count(True) == 1
    assert numbers(uri) == [won.index(True)]


def test_an_interrupted_overwrite_changes_nothing(uri: str) -> None:
    fence = lance_datasets.fence(uri, SCHEMA)
    version = lance_datasets.overwrite(uri, SCHEMA, batches(1), fence, "")

    def breaks_off() -> Iterator[pa.RecordBatch]:
        yield from batches(2)
        raise ValueError("the kernel broke")

    with pytest.raises((OSError, ValueError), match="the kernel broke"):
        lance_datasets.overwrite(uri, SCHEMA, breaks_off(), version, "")
    assert numbers(uri) == [1]
    assert lance_datasets.fence(uri, SCHEMA) == version


@pytest.mark.parametrize("round_", range(5))
def test_appends_at_once_all_land(uri: str, round_: int) -> None:
    """Also the first ones, which find no table: two runs fill one cache, one blob index, one ledger."""
    together(6, lambda i: lance_datasets.append(uri, pa.table({"n": pa.array([i], pa.int64())})))
    together(6, lambda i: lance_datasets.append(uri, pa.table({"n": pa.array([6 + i], pa.int64())})))
    assert sorted(numbers(uri)) == list(range(12))


def test_small_tables_are_joined() -> None:
    parts = (pa.table({"n": range(start, start + 1_000)}) for start in range(0, 40_000, 1_000))
    found = list(lance_datasets.batches_of(parts))
    assert len(found) <= 3
    assert [value for batch in found for value in batch["n"].to_pylist()] == list(range(40_000))
    assert list(lance_datasets.batches_of([])) == []


# -- stage tables


def sealed(digest: RowDigest, **changed: Any) -> StageMeta:
    values: dict[str, Any] = {
        "data_version": digest.hexdigest(), "inputs": "i", "rows": digest.rows, "row_count": digest.rows, "failures": 0, "failed": 1, "retryable": 0, "environment": "e",
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
    fence = tables.fence(asset, CELL, CONTRACT) if fence is None else fence
    return tables.publish(asset, CELL, CONTRACT, parts, fence, lambda digest: sealed(digest, **changed))


def test_meta_travels_with_its_rows(tables: StageTables) -> None:
    assert tables.meta("segments", CELL) is None
    assert tables.version("segments", CELL) == 0
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
    before = tables.version("segments", CELL)
    publish(tables, rows(("b", 2)), run_id="r2")
    assert tables.read("segments", CELL).read_all()["key"].to_pylist() == ["b"]
    assert tables.read("segments", CELL, version=before).read_all()["key"].to_pylist() == ["a"]
    meta = tables.meta("segments", CELL)
    assert meta is not None
    assert meta.run_id == "r2"


def test_no_rows(tables: StageTables) -> None:
    meta = publish(tables)
    assert meta.rows == 0
    assert tables.meta("segments", CELL) == meta
    assert tables.read("segments", CELL).read_all().num_rows == 0


def test_a_fence_is_no_publication(tables: StageTables) -> None:
    tables.fence("segments", CELL, CONTRACT)
    assert tables.meta("segments", CELL) is None
    with pytest.raises(LookupError, match=r"segments of birds@v1\|text is not materialized"):
        tables.read("segments", CELL)
    with pytest.raises(LookupError, match="not materialized"):
        tables.read("raw_assets", CELL)


def test_data_version_follows_content(tables: StageTables) -> None:
    pairs = [(f"k{i}", i) for i in range(100)]
    one = publish(tables, rows(*pairs)).data_version
    assert publish(tables, rows(*pairs[60:], seconds=9.0), rows(*pairs[:60])).data_version == one
    assert publish(tables, rows(*pairs[:-1], ("k99", 98))).data_version != one
    assert publish(tables, rows(*pairs[:-1])).data_version != one


def test_the_late_run_is_fenced(tables: StageTables) -> None:
    fence = tables.fence("segments", CELL, CONTRACT)
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
