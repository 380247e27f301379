"""Datasets that grow by many small commits stay small in fragments, manifests and, after upkeep, in files."""

from __future__ import annotations

import threading
from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import pytest

from mm_resources.storage import dataset_versions, lance_datasets


def rows(first: int, count: int = 4) -> pa.Table:
    return pa.table(
        {
            "key": [f"{i:032x}" for i in range(first, first + count)],
            "n": pa.array(range(first, first + count), pa.int64()),
        }
    )


def fragments(uri: str) -> int:
    dataset = lance_datasets.open_dataset(uri)
    return 0 if dataset is None else len(dataset.get_fragments())


@pytest.fixture
def uri(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(lance_datasets, "SCRAPS", 8)
    return str(tmp_path / "grown.lance")


def test_fragments_are_joined_as_it_grows(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    most = 0
    for i in range(100):
        lance_datasets.append(uri, rows(4 * i))
        most = max(most, fragments(uri))
    assert most <= 8
    dataset = lance_datasets.open_dataset(uri)
    assert dataset is not None
    assert dataset.to_table() == rows(0, 400)


def test_what_is_large_enough_is_not_written_again(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lance_datasets, "_SCRAP_ROWS", 32)
    for i in range(7):
        lance_datasets.append(uri, rows(4 * i))
    lance_datasets.append(uri, rows(28))
    dataset = lance_datasets.open_dataset(uri)
    assert dataset is not None
    joined = [fragment.fragment_id for fragment in dataset.get_fragments()]
    assert len(joined) == 1
    for i in range(8, 40):
        lance_datasets.append(uri, rows(4 * i))
    dataset = lance_datasets.open_dataset(uri)
    assert dataset is not None
    assert dataset.get_fragments()[0].fragment_id == joined[0]
    assert dataset.to_table() == rows(0, 160)


def test_writers_at_once_lose_nothing(uri: str) -> None:
    """Appends and the compactions that they start, from several threads."""

    def write(first: int) -> None:
        for i in range(20):
            lance_datasets.append(uri, rows(first + 4 * i))

    writers = [threading.Thread(target=write, args=(1_000 * number,)) for number in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    dataset = lance_datasets.open_dataset(uri)
    assert dataset is not None
    wanted = sorted(1_000 * number + i for number in range(3) for i in range(80))
    assert sorted(dataset.to_table()["n"].to_pylist()) == wanted


def test_cleaning_keeps_tags_and_the_present(uri: str) -> None:
    for i in range(6):
        lance_datasets.append(uri, rows(4 * i))
    dataset = lance_datasets.open_dataset(uri)
    assert dataset is not None
    early = dataset.versions()[2]["version"]
    dataset.tags.create("kept", early)
    assert dataset_versions.clean(uri, timedelta(days=1)) == (0, 0)
    removed, _ = dataset_versions.clean(uri, timedelta(0))
    assert removed > 0
    now, kept = lance_datasets.open_dataset(uri), lance_datasets.open_dataset(uri, "kept")
    assert now is not None
    assert kept is not None
    assert now.to_table() == rows(0, 24)
    assert kept.version == early
    assert 0 < kept.count_rows() < 24
    assert len(now.versions()) == 2


def test_nothing_to_do(uri: str) -> None:
    assert lance_datasets.compact(uri, 2) == 0
    assert dataset_versions.clean(uri, timedelta(0)) == (0, 0)
    lance_datasets.append(uri, rows(0))
    assert lance_datasets.compact(uri, 2) == 0


def test_rows_that_moved_meanwhile_are_not_deleted(uri: str) -> None:
    """Their ids may be other rows' by now; the caller tries again another day."""
    for i in range(6):
        lance_datasets.append(uri, rows(4 * i))
    before = lance_datasets.open_dataset(uri)
    assert before is not None
    assert lance_datasets.compact(uri, 2) == 6
    assert lance_datasets.delete_rows(before, [0, 1]) == 0
    now = lance_datasets.open_dataset(uri)
    assert now is not None
    assert now.count_rows() == 24
