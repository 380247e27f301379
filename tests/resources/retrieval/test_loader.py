"""The loader: one order for a seed and epoch with any number of workers, and every row once."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mm_embed_kernels.errors import UserError
from mm_resources.catalog import Catalog
from mm_resources.retrieval import epoch_order as module
from mm_resources.retrieval.batches import BatchMaker
from mm_resources.retrieval.epoch_order import EpochOrder
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


def loader(
    take: Any,
    rows: int,
    batch_size: int | None,
    shuffle: bool,
    seed: int,
    workers: int = 0,
    rank: int = 0,
    world_size: int = 1,
    **more: Any,
) -> Loader:
    return Loader(take, EpochOrder(rows, shuffle, seed), batch_size, workers, rank, world_size, **more)


@pytest.fixture(autouse=True)
def small_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RUN_ROWS", 7)
    monkeypatch.setattr(module, "WINDOW_ROWS", 64)


def flat(batches: list[list[int]]) -> list[int]:
    return [n for batch in batches for n in batch]


def numbers(batches: Any) -> list[list[int]]:
    return [batch["n"].tolist() for batch in batches]


@pytest.mark.parametrize("rows", [0, 1, 6, 7, 64, 200, 1_003])
@pytest.mark.parametrize("batch_size", [1, 10, 100])
def test_every_row_once_in_a_new_order_each_epoch(rows: int, batch_size: int) -> None:
    shuffled = loader(Numbers(), rows, batch_size, True, 3)
    first, second = numbers(shuffled), numbers(shuffled)
    for epoch in (first, second):
        assert sorted(flat(epoch)) == list(range(rows))
        assert [len(batch) for batch in epoch] == [batch_size] * (rows // batch_size) + (
            [rows % batch_size] if rows % batch_size else []
        )
    assert len(first) == len(shuffled)
    assert rows < 64 or first != second
    assert numbers(loader(Numbers(), rows, batch_size, True, 3)) == first
    assert rows < 64 or numbers(loader(Numbers(), rows, batch_size, True, 4)) != first
    assert flat(numbers(loader(Numbers(), rows, batch_size, False, 0))) == list(range(rows))


def test_columns_stay_together() -> None:
    for batch in loader(Numbers(), 300, 9, True, 0):
        assert batch["name"] == [None if n % 5 == 0 else f"row {n}" for n in batch["n"].tolist()]
        assert batch["pair"] == [[n, n + 1] for n in batch["n"].tolist()]


def test_shuffling_mixes_the_set() -> None:
    """Neighbours in the set are rarely neighbours in the order, and its start has rows from anywhere."""
    order = flat(numbers(loader(Numbers(), 5_000, 50, True, 0)))
    assert np.mean(np.abs(np.diff(order)) == 1) < 0.05
    assert 1_500 < np.mean(order[:500]) < 3_500


def test_who_takes_no_more_than_all_batches_has_whole_epochs() -> None:
    """As Lightning does, which never asks for the end."""
    expected = loader(Numbers(), 30, 10, True, 5)
    counted = loader(Numbers(), 30, 10, True, 5)
    for _ in range(3):
        batches = iter(counted)
        assert [next(batches)["n"].tolist() for _ in range(len(counted))] == numbers(expected)
    assert counted.state_dict()["epoch"] == 3


@pytest.mark.parametrize("stopped", [1, 5, 6, 13, 30])
def test_a_pass_goes_on_where_it_was_broken_off(stopped: int) -> None:
    whole = loader(Numbers(), 300, 10, True, 5)
    expected = [numbers(whole), numbers(whole)]
    broken = loader(Numbers(), 300, 10, True, 5)
    begun = [batch["n"].tolist() for _, batch in zip(range(stopped), broken, strict=False)]
    state = broken.state_dict()
    take = Numbers()
    resumed = loader(take, 300, 10, True, 5)
    resumed.load_state_dict(state)
    rest = numbers(resumed)
    if stopped == 30:
        assert rest == expected[1], "nothing is left at the end of an epoch"
    else:
        assert begun + rest == expected[0]
        assert sum(take.taken) <= 300 - stopped // 6 * 60, "rows of returned batches are not read again"
        assert numbers(resumed) == expected[1]


@pytest.mark.parametrize("world_size", [2, 3])
@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("rows", [505, 61, 4])
def test_ranks_share_an_epoch(world_size: int, shuffle: bool, rows: int) -> None:
    ranks = [
        numbers(loader(Numbers(), rows, 10, shuffle, 1, 0, rank, world_size)) for rank in range(world_size)
    ]
    assert len({len(batches) for batches in ranks}) == 1, "no rank waits for another without end"
    assert sorted(n for batches in ranks for n in flat(batches)) == list(range(rows))
    assert max(len(batch) for batches in ranks for batch in batches) <= 11
    whole = [
        numbers(loader(Numbers(), rows, 1, shuffle, 1, 0, rank, world_size, drop_last=True))
        for rank in range(world_size)
    ]
    assert {len(batches) for batches in whole} == {rows // world_size}


def test_ranks_without_rows_are_refused() -> None:
    with pytest.raises(UserError, match="2 rows give none to some of 3 ranks"):
        loader(Numbers(), 2, 10, True, 1, 0, 0, 3)
    with pytest.raises(UserError, match="20 rows do not fill a batch of 10 on each of 3 ranks"):
        loader(Numbers(), 20, 10, True, 1, 0, 0, 3, drop_last=True)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.integers(1, 400),
    shuffle=st.booleans(),
    legs=st.lists(
        st.tuples(st.integers(1, 5), st.sampled_from([1, 3, 10, 64]), st.integers(0, 12)),
        min_size=1,
        max_size=5,
    ),
    last=st.tuples(st.integers(1, 5), st.integers(1, 70)),
)
def test_each_row_comes_once_however_often_the_ranks_change(
    rows: int, shuffle: bool, legs: list[tuple[int, int, int]], last: tuple[int, int]
) -> None:
    """Each leg: a number of ranks, a batch size, and the batches after which all stop."""
    seen: list[int] = []
    state: dict[str, Any] | None = None
    for world_size, batch_size, stop in [*legs, (*last, 10_000)]:
        loaders = []
        try:
            for rank in range(world_size):
                loaders.append(loader(Numbers(), rows, batch_size, shuffle, 7, 0, rank, world_size))
                if state:
                    loaders[-1].load_state_dict(json.loads(json.dumps(state)))
        except UserError as error:
            assert "ranks" in str(error)
            loaders = [loader(Numbers(), rows, batch_size, shuffle, 7)]
            if state:
                loaders[0].load_state_dict(state)
        counts = set()
        for each in loaders:
            taken = [batch["n"].tolist() for _, batch in zip(range(stop), each, strict=False)]
            seen += flat(taken)
            counts.add(len(taken))
        assert len(counts) == 1
        states = [each.state_dict() for each in loaders]
        assert all(one == states[0] for one in states)
        state = states[0]
        if state["epoch"]:
            break
    assert sorted(seen) == list(range(rows))
    assert state is not None
    assert state == {**state, "epoch": 1, "left": None}


def test_worker_processes_change_nothing() -> None:
    """Two epochs in forked workers, then the second once more from the middle, by its number of batches."""
    from torch.utils.data import DataLoader

    alone = loader(take_plain, 300, 10, True, 5)
    expected = [numbers(alone), numbers(alone)]
    helped = loader(take_plain, 300, 10, True, 5)
    epochs = DataLoader(helped, batch_size=None, num_workers=2)
    assert len(epochs) == 30
    assert [numbers(epochs), numbers(epochs)] == expected
    with pytest.raises(UserError, match=r"state_dict\(batches=N\)"):
        helped.state_dict()
    assert helped.state_dict(batches=30)["epoch"] == 2
    state = helped.state_dict(batches=7)
    assert state["epoch"] == 1
    resumed = loader(take_plain, 300, 10, True, 5)
    resumed.load_state_dict(state)
    assert numbers(DataLoader(resumed, batch_size=None, num_workers=2)) == expected[1][7:]
    helped.set_epoch(0)
    assert numbers(epochs) == expected[0]


def take_plain(numbers: np.ndarray[Any, Any]) -> pa.Table:
    return pa.table({"n": numbers})


def test_single_rows_transforms_and_collation() -> None:
    single = loader(Numbers(), 30, None, True, 1)
    assert len(single) == 30
    rows = list(single)
    assert sorted(int(row["n"]) for row in rows) == list(range(30))
    assert {row["name"] for row in rows} == {None if n % 5 == 0 else f"row {n}" for n in range(30)}

    maker = BatchMaker(transform=lambda row: {"twice": 2 * int(row["n"]), "name": row["name"]})
    batch = next(iter(loader(Numbers(), 30, 4, False, 1, maker=maker)))
    assert batch["twice"].tolist() == [0, 2, 4, 6]
    assert batch["name"] == [None, "row 1", "row 2", "row 3"]
    maker = BatchMaker(collate=lambda rows: len(rows))
    assert list(loader(Numbers(), 30, 20, False, 1, maker=maker)) == [20, 10]


def test_workers_change_nothing() -> None:
    """Worker threads, which read windows in parallel."""
    alone, helped = loader(Numbers(), 1_000, 10, True, 2), loader(Numbers(), 1_000, 10, True, 2, workers=2)
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
    batches = iter(loader(take, 10_000, 10, True, 2, workers=2))
    next(batches)
    batches.close()  # type: ignore[attr-defined]
    while any(thread.name.startswith("loader") for thread in threading.enumerate()):
        time.sleep(0.01)
    assert len(take.taken) <= 4


def test_what_cannot_be_read_ends_the_pass() -> None:
    def gone(numbers: np.ndarray[Any, Any]) -> pa.Table:
        raise UserError("the table is gone")

    with pytest.raises(UserError, match="the table is gone"):
        list(loader(gone, 100, 10, True, 0, workers=2))


@pytest.mark.parametrize("other", [{"seed": 4}, {"rows": 301}, {"shuffle": False}])
def test_a_state_of_another_order_is_refused(other: dict[str, Any]) -> None:
    settings: dict[str, Any] = {"rows": 300, "batch_size": 10, "shuffle": True, "seed": 3}
    state = loader(Numbers(), **settings).state_dict()
    with pytest.raises(UserError, match="another order of rows: 300 rows shuffled with seed 3"):
        loader(Numbers(), **{**settings, **other}).load_state_dict(state)
    with pytest.raises(UserError, match="one of an older version"):
        loader(Numbers(), **settings).load_state_dict({"epoch": 0, "batches": 3})


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
    batches = list(chosen.to_torch(batch_size=64, shuffle=True, seed=1))
    assert sum(len(batch["vector"]) for batch in batches) == candidate.rows - 100
    assert batches[0]["vector"].shape == (64, DIMENSION)
    stored = dict(
        zip(table(500)["feature_id"].to_pylist(), table(500)["user__stars"].to_pylist(), strict=True)
    )
    for batch in batches:
        assert [stored[i] for i in batch["feature_id"]] == batch["user__stars"].tolist()
        assert batch["label"] == [None] * len(batch["label"])
    assert list(batches[0]) == ["entity_id", "feature_id", "sample_id", "vector", "label", "user__stars"]
