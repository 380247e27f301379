"""The loader: one order for a seed and epoch with any number of workers, and every row once."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from mm_embed_kernels.errors import UserError
from mm_resources.catalog import Catalog
from mm_resources.retrieval import loader as module
from mm_resources.retrieval.loader import Loader
from mm_resources.retrieval.training_set import TrainingSet
from tests.resources.features.test_feature_tables import CONTRACT, DIMENSION, table


class Numbers:
    """A training set whose rows are their own numbers."""

    def __init__(self) -> None:
        self.taken: list[int] = []

    def __call__(self, numbers: np.ndarray[Any, Any]) -> pa.Table:
        assert (np.diff(numbers) > 0).all(), "rows are read in stored order"
        self.taken.append(len(numbers))
        names = [None if n % 5 == 0 else f"row {n}" for n in numbers]
        return pa.table(
            {"n": numbers, "name": pa.array(names, pa.string()), "pair": [[n, n + 1] for n in numbers]}
        )


@pytest.fixture(autouse=True)
def small_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RUN_ROWS", 7)
    monkeypatch.setattr(module, "WINDOW_ROWS", 64)


def flat(batches: list[list[int]]) -> list[int]:
    return [n for batch in batches for n in batch]


def numbers(loader: Loader) -> list[list[int]]:
    return [batch["n"].tolist() for batch in loader]


@pytest.mark.parametrize("rows", [0, 1, 6, 7, 64, 200, 1_003])
@pytest.mark.parametrize("batch_size", [1, 10, 100])
def test_every_row_once_in_a_new_order_each_epoch(rows: int, batch_size: int) -> None:
    loader = Loader(Numbers(), rows, batch_size, True, 3)
    first, second = numbers(loader), numbers(loader)
    for epoch in (first, second):
        assert sorted(flat(epoch)) == list(range(rows))
        assert [len(batch) for batch in epoch] == [batch_size] * (rows // batch_size) + (
            [rows % batch_size] if rows % batch_size else []
        )
    assert len(first) == len(loader)
    assert rows < 64 or first != second
    assert numbers(Loader(Numbers(), rows, batch_size, True, 3)) == first
    assert rows < 64 or numbers(Loader(Numbers(), rows, batch_size, True, 4)) != first
    assert flat(numbers(Loader(Numbers(), rows, batch_size, False, 0))) == list(range(rows))


def test_columns_stay_together() -> None:
    for batch in Loader(Numbers(), 300, 9, True, 0):
        assert batch["name"] == [None if n % 5 == 0 else f"row {n}" for n in batch["n"].tolist()]
        assert batch["pair"] == [[n, n + 1] for n in batch["n"].tolist()]


def test_shuffling_mixes_the_set() -> None:
    """Neighbours in the set are rarely neighbours in the order, and its start has rows from anywhere."""
    order = flat(numbers(Loader(Numbers(), 5_000, 50, True, 0)))
    assert np.mean(np.abs(np.diff(order)) == 1) < 0.05
    assert 1_500 < np.mean(order[:500]) < 3_500


@pytest.mark.parametrize("stopped", [1, 5, 6, 13, 30])
def test_a_pass_goes_on_where_it_was_broken_off(stopped: int) -> None:
    whole = Loader(Numbers(), 300, 10, True, 5)
    expected = [numbers(whole), numbers(whole)]
    broken = Loader(Numbers(), 300, 10, True, 5)
    begun = [batch["n"].tolist() for _, batch in zip(range(stopped), broken, strict=False)]
    state = broken.state_dict()
    take = Numbers()
    resumed = Loader(take, 300, 10, True, 5)
    resumed.load_state_dict(state)
    rest = numbers(resumed)
    if stopped == 30:
        assert rest in ([], expected[1]), "nothing is left at the end of an epoch"
    else:
        assert begun + rest == expected[0]
        assert sum(take.taken) <= 300 - stopped // 6 * 60, "rows of returned batches are not read again"
        assert numbers(resumed) == expected[1]


@pytest.mark.parametrize("world_size", [2, 3])
@pytest.mark.parametrize("shuffle", [True, False])
def test_ranks_share_an_epoch(world_size: int, shuffle: bool) -> None:
    ranks = [
        numbers(Loader(Numbers(), 505, 10, shuffle, 1, 0, rank, world_size)) for rank in range(world_size)
    ]
    assert {len(batches) for batches in ranks} == {505 // (10 * world_size)}
    seen = [n for batches in ranks for n in flat(batches)]
    assert len(seen) == len(set(seen)) == 505 // (10 * world_size) * 10 * world_size


def test_workers_change_nothing() -> None:
    """Worker threads, which read windows in parallel."""
    alone, helped = Loader(Numbers(), 1_000, 10, True, 2), Loader(Numbers(), 1_000, 10, True, 2, workers=2)
    expected = numbers(alone)
    found = []
    for batch in helped:
        found.append(batch["n"].tolist())
        if len(found) == 17:
            break
    helped.load_state_dict(helped.state_dict())
    assert found + numbers(helped) == expected


def test_workers_read_no_further_than_asked() -> None:
    """An interrupted pass leaves no thread behind, and has read only a few windows ahead."""
    take = Numbers()
    batches = iter(Loader(take, 10_000, 10, True, 2, workers=2))
    next(batches)
    batches.close()  # type: ignore[attr-defined]
    while any(thread.name.startswith("loader") for thread in threading.enumerate()):
        time.sleep(0.01)
    assert len(take.taken) <= 4


def test_what_cannot_be_read_ends_the_pass() -> None:
    def gone(numbers: np.ndarray[Any, Any]) -> pa.Table:
        raise UserError("the table is gone")

    with pytest.raises(UserError, match="the table is gone"):
        list(Loader(gone, 100, 10, True, 0, workers=2))


@pytest.mark.parametrize(
    "other", [{"seed": 4}, {"batch_size": 20}, {"rows": 301}, {"shuffle": False}, {"world_size": 2}]
)
def test_a_state_of_another_order_is_refused(other: dict[str, Any]) -> None:
    settings: dict[str, Any] = {"rows": 300, "batch_size": 10, "shuffle": True, "seed": 3}
    state = Loader(Numbers(), **settings).state_dict()
    with pytest.raises(UserError, match="another order of rows: 300 rows shuffled with seed 3"):
        Loader(Numbers(), **{**settings, **other}).load_state_dict(state)
    with pytest.raises(UserError, match="one of an older version"):
        Loader(Numbers(), **settings).load_state_dict({"epoch": 0, "batches": 3})


def test_rows_of_a_real_table(tmp_path: Path) -> None:
    catalog = Catalog.open(tmp_path)
    candidate = catalog.features.write_candidate("d.v1.image.e", CONTRACT, [table(500)])
    manifest = {
        "dataset_version": "d@v1",
        "tables": [{"modality": "image", "table": "d.v1.image.e", "lance_version": candidate.lance_version}],
        "where": "user__stars >= 100",
        "columns": ["label", "user__stars"],
    }
    chosen = TrainingSet(catalog, manifest)
    loader = chosen.to_torch(batch_size=64, shuffle=True, seed=1)
    batches = list(loader)
    assert sum(len(batch["vector"]) for batch in batches) == candidate.rows - 100
    assert batches[0]["vector"].shape == (64, DIMENSION)
    stored = dict(
        zip(table(500)["feature_id"].to_pylist(), table(500)["user__stars"].to_pylist(), strict=True)
    )
    for batch in batches:
        assert [stored[i] for i in batch["feature_id"]] == batch["user__stars"].tolist()
        assert batch["label"] == [None] * len(batch["label"])
    assert list(batches[0]) == ["entity_id", "feature_id", "sample_id", "vector", "label", "user__stars"]
