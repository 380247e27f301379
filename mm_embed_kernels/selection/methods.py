"""Methods that choose some of the rows of a matrix of unit vectors; each in the memory of one block.

`spread` is greedy k-centre (Gonzalez, 1985; Sener and Savarese, "Active learning for convolutional neural
networks: a core-set approach", 2018), `cover` facility location by stochastic greedy (Mirzasoleiman et al.,
"Lazier than lazy greedy", 2015), `typify` the most typical of each cluster (Hacohen, Dekel and Weinshall,
"Active learning on a budget", 2022).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

Vectors = np.ndarray[Any, np.dtype[np.float32]]
# Neighbours over which typicality is measured, as in Hacohen et al.
NEIGHBOURS = 20
# Share of the best gain that stochastic greedy misses in expectation.
_EPSILON = 0.1
# Below so many rows the similarities of all pairs are kept, 64 MiB.
_PAIRED_ROWS = 4_096


@dataclass(frozen=True)
class Choice:
    """Rows that a method has chosen, in its order.

    Attributes:
        rows: numbers of the rows, int64 [m].
        values: what speaks for each: for `spread` its cosine distance to the nearest one before it (1 for the
            first), for `cover` its gain, for `typify` its typicality, else 0; float64 [m].
        stands_for: weight of the rows that are nearest to it, its own included; float64 [m].
    """

    rows: np.ndarray[Any, Any]
    values: np.ndarray[Any, Any]
    stands_for: np.ndarray[Any, Any]


Method = Callable[
    [Vectors, np.ndarray[Any, Any], int, np.random.Generator, np.ndarray[Any, Any] | None], Choice
]


def spread(
    vectors: Vectors,
    weights: np.ndarray[Any, Any],
    count: int,
    generator: np.random.Generator,  # noqa: ARG001 - of the methods that draw
    values: np.ndarray[Any, Any] | None = None,
) -> Choice:
    """Choose rows that are far from each other: next the one farthest from all before; first the middle one.

    Args:
        vectors: unit vectors, float32 [n, d].
        weights: rows that each stands for, float64 [n].
        count: rows to choose, at most n.
        generator: of the methods that draw.
        values: those of an earlier round, where there was one.
    """
    rows, values, owner = _farthest_first(vectors, weights, count)
    return Choice(rows, values, np.bincount(owner, weights, len(rows)))


def _farthest_first(
    vectors: Vectors, weights: np.ndarray[Any, Any], count: int
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Return the chosen rows, the distance of each to those before, and the choice nearest to each row."""
    rows, values = np.zeros(count, np.int64), np.ones(count)
    nearest, owner = np.full(len(vectors), -np.inf, np.float32), np.zeros(len(vectors), np.int64)
    chosen = int(np.argmax(vectors @ (weights.astype(np.float32) @ vectors)))
    for step in range(count):
        if step:
            chosen = int(np.argmin(nearest))
            values[step] = max(0.0, 1.0 - float(nearest[chosen]))
        rows[step] = chosen
        similarity = vectors @ vectors[chosen]
        closer = similarity > nearest
        owner[closer] = step
        np.maximum(nearest, similarity, out=nearest)
        # No row is chosen twice, even among equal ones.
        nearest[chosen], owner[chosen] = np.inf, step
    return rows, values, owner


def cover(
    vectors: Vectors,
    weights: np.ndarray[Any, Any],
    count: int,
    generator: np.random.Generator,
    values: np.ndarray[Any, Any] | None = None,
) -> Choice:
    """Choose rows to which all rows are near on average: the largest sum of similarities to the nearest one.

    Arguments as of `spread`.
    """
    size = len(vectors)
    paired = vectors @ vectors.T if size <= _PAIRED_ROWS else None
    nearest = np.full(size, -1.0, np.float32)
    mass, left = weights.astype(np.float32), np.arange(size)
    rows, values = np.zeros(count, np.int64), np.zeros(count)
    owner = np.zeros(size, np.int64)
    tried = min(size, int(np.ceil(size / count * np.log(1 / _EPSILON))))
    for step in range(count):
        places = generator.choice(len(left), min(tried, len(left)), replace=False)
        candidates = left[places]
        near = paired[candidates] if paired is not None else vectors[candidates] @ vectors.T
        gains = np.maximum(near - nearest, 0) @ mass
        best = int(np.argmax(gains))
        rows[step], values[step] = candidates[best], gains[best]
        owner[near[best] > nearest] = step
        np.maximum(nearest, near[best], out=nearest)
        owner[rows[step]], nearest[rows[step]] = step, np.inf
        left[places[best]] = left[-1]
        left = left[:-1]
    return Choice(rows, values, np.bincount(owner, weights, count))


def typify(
    vectors: Vectors,
    weights: np.ndarray[Any, Any],
    count: int,
    generator: np.random.Generator,  # noqa: ARG001
    values: np.ndarray[Any, Any] | None = None,
) -> Choice:
    """Choose the most typical row of each cluster of `spread`, those of the largest clusters first.

    Arguments as of `spread`; in a later round the typicality is that of the first, among a whole block.
    """
    rows, _, owner = _farthest_first(vectors, weights, count)
    typical = typicality(vectors) if values is None else values
    order = np.lexsort((-typical, owner))
    first = np.unique(owner[order], return_index=True)[1]
    rows, sizes = order[first], np.bincount(owner, weights, count)
    largest = np.argsort(-sizes, kind="stable")
    return Choice(rows[largest], typical[rows[largest]], sizes[largest])


def typicality(vectors: Vectors) -> np.ndarray[Any, Any]:
    """Return the inverse of the mean cosine distance of each row to its nearest ones, float64 [n]."""
    size, near = len(vectors), min(NEIGHBOURS, len(vectors) - 1)
    if not near:
        return np.zeros(size)
    found = np.zeros(size)
    for start in range(0, size, _PAIRED_ROWS):
        similarity = vectors[start : start + _PAIRED_ROWS] @ vectors.T
        # The row itself is among them, with similarity 1.
        top = np.partition(similarity, size - near - 1, axis=1)[:, size - near - 1 :]
        found[start : start + _PAIRED_ROWS] = (top.sum(axis=1) - 1.0) / near
    return np.asarray(1.0 / np.maximum(1.0 - found, 1e-6))


def draw(
    vectors: Vectors,
    weights: np.ndarray[Any, Any],
    count: int,
    generator: np.random.Generator,
    values: np.ndarray[Any, Any] | None = None,  # noqa: ARG001
) -> Choice:
    """Choose rows at random, each as likely as its weight says; what the others are held against."""
    rows = generator.choice(len(vectors), count, replace=False, p=weights / weights.sum())
    return Choice(rows.astype(np.int64), np.zeros(count), weights[rows].astype(np.float64))


METHODS: Mapping[str, Method] = {
    "diversity": spread,
    "coverage": cover,
    "typicality": typify,
    "random": draw,
}
