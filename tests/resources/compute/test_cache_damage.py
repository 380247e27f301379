"""Damaged rows of the compute cache are misses, wherever in their file the damage lies."""

from __future__ import annotations

import logging
from pathlib import Path

import pyarrow as pa
import pytest

from mm_resources.compute.cache import ComputeCache
from mm_resources.compute.runner import KernelRunner
from mm_resources.storage import lance_datasets
from mm_resources.storage.store import Store
from tests.resources.compute.test_cache import Lengths

# Places in a file of the cache, as shares of its length: pages, their metadata, the footer.
PLACES = (0.0, 0.02, 0.2, 0.4, 0.6, 0.8, 0.95, 0.999)


def requests(*keys: str) -> pa.Table:
    return pa.table({"key": list(keys)})


@pytest.fixture
def runner(tmp_path: Path) -> KernelRunner:
    return KernelRunner(ComputeCache(Store(str(tmp_path))))


def data_files(runner: KernelRunner, kernel: Lengths) -> list[Path]:
    """The data files of a kernel's cache, oldest first."""
    uri = runner.cache.space(kernel).uri
    dataset = lance_datasets.open_dataset(uri)
    assert dataset is not None
    return [Path(uri) / "data" / file.path for each in dataset.get_fragments() for file in each.data_files()]


@pytest.mark.parametrize("place", PLACES)
def test_damaged_rows_alone_are_computed_again(
    runner: KernelRunner, place: float, caplog: pytest.LogCaptureFixture
) -> None:
    kernel = Lengths()
    runner.run(kernel, requests("a", "bb"))
    runner.run(kernel, requests("ccc"))
    file = data_files(runner, kernel)[0]
    data = bytearray(file.read_bytes())
    data[int(len(data) * place)] ^= 0x40
    file.write_bytes(bytes(data))
    with caplog.at_level(logging.WARNING):
        report = runner.run(kernel, requests("a", "ccc"))
    assert (report.computed, report.reused) == (1, 1)
    assert ["2 rows are damaged" in record.message for record in caplog.records] == [True]
    assert runner.run(kernel, requests("a", "bb", "ccc")).computed == 1, "its neighbour in the file"
    rows = runner.cache.space(kernel).reader(["key", "length"]).read_all().to_pylist()
    assert sorted((row["key"], row["length"]) for row in rows) == [("a", 1), ("bb", 2), ("ccc", 3)]


def test_rows_that_nobody_asks_for_stay(runner: KernelRunner) -> None:
    kernel = Lengths()
    runner.run(kernel, requests("a"))
    runner.run(kernel, requests("bb"))
    file = data_files(runner, kernel)[0]
    data = bytearray(file.read_bytes())
    data[len(data) // 3] ^= 1
    file.write_bytes(bytes(data))
    assert runner.run(kernel, requests("bb")).reused == 1


def test_joined_rows_have_a_hash_of_their_own(runner: KernelRunner) -> None:
    kernel = Lengths()
    for key in ("a", "bb", "ccc"):
        runner.run(kernel, requests(key))
    assert lance_datasets.compact(runner.cache.space(kernel).uri, 2) == 3
    (file,) = data_files(runner, kernel)
    assert runner.run(kernel, requests("a", "bb", "ccc")).reused == 3
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(bytes(data))
    assert runner.run(kernel, requests("a", "bb", "ccc")).computed == 3


def test_damage_is_not_joined_away(runner: KernelRunner) -> None:
    kernel = Lengths()
    for key in ("a", "bb", "ccc"):
        runner.run(kernel, requests(key))
    file = data_files(runner, kernel)[1]
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(bytes(data))
    assert lance_datasets.compact(runner.cache.space(kernel).uri, 2) == 2
    assert runner.run(kernel, requests("a", "bb", "ccc")).computed == 1


def test_rows_of_older_versions_are_read(runner: KernelRunner) -> None:
    kernel = Lengths()
    runner.run(kernel, requests("a"))
    folder = Path(runner.cache.space(kernel).uri) / "_hashes"
    for file in sorted(folder.rglob("*"), reverse=True):
        file.unlink() if file.is_file() else file.rmdir()
    assert runner.run(kernel, requests("a")).reused == 1
