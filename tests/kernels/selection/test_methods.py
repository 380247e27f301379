"""Methods that choose rows: against plain definitions, and in two rounds against one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mm_embed_kernels.selection.methods import METHODS, cover, spread, typicality
from mm_embed_kernels.selection.rounds import BLOCK_ROWS, Selection, share_out

GENERATOR = np.random.default_rng(0)


def unit(vectors: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def clusters(
    sizes: list[int], noise: float = 0.05, dimension: int = 16
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    generator = np.random.default_rng(1)
    centres = np.eye(dimension)[: len(sizes)]
    owner = np.repeat(np.arange(len(sizes)), sizes)
    shuffled = generator.permutation(owner)
    return unit(centres[shuffled] + noise * generator.standard_normal((len(shuffled), dimension))), shuffled


@pytest.mark.parametrize("name", METHODS)
def test_no_row_is_chosen_twice_even_among_equal_ones(name: str) -> None:
    vectors = np.repeat(unit(np.eye(4)), 5, axis=0)
    choice = METHODS[name](vectors, np.ones(20), 20, np.random.default_rng(0), None)
    assert sorted(choice.rows.tolist()) == list(range(20))


def test_spread_takes_the_farthest_each_time() -> None:
    vectors = unit(GENERATOR.standard_normal((60, 8)))
    choice = spread(vectors, np.ones(60), 12, GENERATOR)
    for step in range(1, 12):
        before = choice.rows[:step]
        distances = (1 - vectors @ vectors[before].T).min(axis=1)
        distances[before] = -1
        assert choice.values[step] == pytest.approx(distances.max(), abs=1e-6)
        assert distances[choice.rows[step]] == pytest.approx(distances.max(), abs=1e-6)
    assert choice.stands_for.sum() == 60


def test_spread_finds_a_cluster_of_three_among_thousands() -> None:
    vectors, owner = clusters([3_000, 500, 3])
    assert set(owner[spread(vectors, np.ones(len(vectors)), 3, GENERATOR).rows]) == {0, 1, 2}


def test_coverage_reaches_nine_tenths_of_plain_greedy() -> None:
    vectors = unit(GENERATOR.standard_normal((120, 6)))
    similarity = vectors @ vectors.T

    def covered(rows: list[int]) -> float:
        return float(similarity[rows].max(axis=0).sum())

    plain: list[int] = []
    for _ in range(10):
        plain.append(max((i for i in range(120) if i not in plain), key=lambda i: covered([*plain, i])))
    rows = cover(vectors, np.ones(120), 10, np.random.default_rng(0)).rows.tolist()
    assert covered(rows) >= 0.9 * covered(plain)
    assert covered(rows) > covered(np.random.default_rng(0).choice(120, 10, replace=False).tolist())


def test_typicality_is_the_inverse_mean_distance_of_neighbours() -> None:
    vectors = unit(GENERATOR.standard_normal((50, 8)))
    distances = np.sort(1 - vectors.astype(float) @ vectors.astype(float).T, axis=1)[:, 1:21]
    np.testing.assert_allclose(typicality(vectors), 1 / distances.mean(axis=1), rtol=1e-3)


def test_typical_rows_are_in_the_middle_of_their_clusters() -> None:
    vectors, owner = clusters([200, 200], noise=0.2)
    rows = METHODS["typicality"](vectors, np.ones(400), 2, GENERATOR, None).rows
    assert set(owner[rows]) == {0, 1}
    middle = (vectors @ np.eye(16)[:2].T)[np.arange(400), owner]
    assert all((middle > middle[row]).mean() < 0.2 for row in rows)


@pytest.mark.parametrize("name", METHODS)
def test_two_rounds_choose_as_many_and_the_same_however_the_stream_is_cut(name: str) -> None:
    vectors, owner = clusters([BLOCK_ROWS, 4_000, 40], noise=0.3)

    def chosen(step: int) -> list[int]:
        selection = Selection(METHODS[name], {"": 60}, {"": len(vectors)})
        for start in range(0, len(vectors), step):
            rows = np.arange(start, min(start + step, len(vectors)))
            selection.add(rows, np.full(len(rows), "", object), vectors[rows])
        return selection.finish()[""].rows.tolist()

    rows = chosen(1_024)
    assert len(set(rows)) == 60
    assert rows == chosen(512)
    if name == "diversity":
        one = spread(vectors, np.ones(len(vectors)), 60, GENERATOR).rows
        radius = [float((1 - vectors @ vectors[each].T).min(axis=1).max()) for each in (rows, one)]
        assert radius[0] <= 1.25 * radius[1]
        assert 2 in owner[rows]


def test_quotas() -> None:
    assert share_out(90, {"a": 100, "b": 100, "c": 100}, {}) == {"a": 30, "b": 30, "c": 30}
    assert share_out(90, {"a": 10, "b": 100, "c": 100}, {}) == {"a": 10, "b": 40, "c": 40}
    assert share_out(90, {"a": 100, "b": 100, "c": 100}, {"c": 70}) == {"c": 70, "a": 10, "b": 10}
    assert share_out(500, {"a": 10, "b": 20}, {}) == {"a": 10, "b": 20}
    assert sum(share_out(100, dict.fromkeys("abcdefg", 1_000), {}).values()) == 100


def test_labels_get_their_quotas_from_a_stream_of_blocks() -> None:
    vectors, owner = clusters([6_000, 3_000, 20])
    names = np.array(["common", "some", "rare"], object)[owner]
    quotas = {"common": 30, "some": 30, "rare": 30}
    selection = Selection(METHODS["diversity"], quotas, {"common": 6_000, "some": 3_000, "rare": 20})
    for start in range(0, len(vectors), 1_000):
        rows = np.arange(start, min(start + 1_000, len(vectors)))
        selection.add(rows, names[rows], vectors[rows])
    found = selection.finish()
    assert {label: len(choice.rows) for label, choice in found.items()} == {
        "common": 30,
        "some": 30,
        "rare": 20,
    }
    assert all(set(names[choice.rows]) == {label} for label, choice in found.items())
