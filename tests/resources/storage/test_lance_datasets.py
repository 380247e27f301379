from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from mm_resources.storage import lance_datasets
from mm_resources.storage.lance_errors import Fenced

SCHEMA = pa.schema([("n", pa.int64())])
WIDE = pa.schema([("key", pa.string()), *SCHEMA])


@pytest.fixture
def uri(tmp_path: Path) -> str:
    return str(tmp_path / "table.lance")


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
    assert lance_datasets.reader(None, WIDE, ["n"]).schema.names == ["n"]


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
