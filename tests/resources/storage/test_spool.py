from __future__ import annotations

import gc
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pytest

from mm_resources.storage import spool
from mm_resources.storage.spool import Spill, TableSpool

ROWS = pa.table({"n": pa.array(range(10), pa.int64()), "text": [f"row {i}" for i in range(10)]})


def test_a_spool_is_read_as_often_as_wanted() -> None:
    found = TableSpool(ROWS.schema)
    for start in range(0, 10, 3):
        found.add(ROWS.slice(start, 3))
    assert found.rows == 10
    first = found.reader()
    assert found.reader().read_all() == ROWS
    assert first.read_all() == ROWS


def test_an_empty_spool_keeps_its_schema() -> None:
    found = TableSpool(ROWS.schema)
    assert found.reader().read_all() == ROWS.schema.empty_table()


def test_the_file_goes_with_the_spool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool.tempfile, "tempdir", str(tmp_path))
    found = TableSpool.of(ROWS.to_reader())
    reader = found.reader()
    assert os.listdir(tmp_path)
    del found
    gc.collect()
    assert not os.listdir(tmp_path)
    assert reader.read_all() == ROWS, "what is being read stays readable"


@pytest.mark.parametrize("count", [0, 1, 7, 8, 9, 100])
def test_a_spill_is_a_list(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool, "_MEMORY_ROWS", 8)
    rows = [{"n": i, "text": "x" * i, "none": None} for i in range(count)]
    found = Spill()
    found += rows[: count // 2]
    for row in rows[count // 2 :]:
        found.append(row)
    assert len(found._recent) < 8
    assert list(found) == rows
    assert list(found) == rows


def test_threads_read_a_spool_that_one_of_them_ends() -> None:
    for _ in range(300):
        found = TableSpool.of(ROWS.to_reader())
        with ThreadPoolExecutor(4) as pool:
            read = [pool.submit(lambda ended: ended.reader().read_all(), found) for _ in range(8)]
            assert all(each.result() == ROWS for each in read)
