"""Ratios against a limit that is measured alternately in the same run: the rows of `make bench`.

A module of this folder with a function ``rows(share: float) -> Iterator[Row]`` is part of the suite; `share`
scales the work of the table in the docs down for a short trial (1.0 is the work that the goal refers to).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from statistics import median

# Default number of pairs of a row; set by `--pairs`.
PAIRS = 3


@dataclass(frozen=True)
class Row:
    """One row of the table: a ratio, its spread and its goal.

    Attributes:
        name: name of the work; the key of the row in results and in the table. ratio: median over
        the pairs. low: smallest ratio of a pair. high: largest ratio of a pair. goal: the ratio to reach;
        None where none is set. sense: ``>=`` where more is better (a rate over the limit's), ``<=`` where
        less is (a time over the limit's).
    """

    name: str
    ratio: float
    low: float
    high: float
    goal: float | None
    sense: str

    @property
    def met(self) -> bool:
        """Return whether the ratio reaches the goal; true without a goal."""
        return self.goal is None or (
            self.ratio >= self.goal if self.sense == ">=" else self.ratio <= self.goal
        )


def measure_pairs(
    name: str,
    ours: Callable[[], float],
    limit: Callable[[], float],
    *,
    goal: float | None,
    sense: str,
    pairs: int | None = None,
) -> Row:
    """Measure the limit and the platform by turns and return the row of their ratios.

    Args:
        name: name of the row.
        ours: does the whole work once with the platform; returns seconds.
        limit: does the same work without the platform; returns seconds.
        goal: the ratio to reach, or None.
        sense: ``>=`` for limit / ours (a rate), ``<=`` for ours / limit (a time).
        pairs: number of pairs; by default `PAIRS`.

    Raises:
        ValueError: for a sense other than ``>=`` and ``<=``.
    """
    _check(sense)
    return row(name, _ratios(ours, limit, sense, PAIRS if pairs is None else pairs), goal=goal, sense=sense)


def row(name: str, ratios: Iterable[float], *, goal: float | None, sense: str) -> Row:
    """Return the row of ratios that are already measured (for example two percentiles of the same answers).

    Raises:
        ValueError: for a sense other than ``>=`` and ``<=``.
    """
    _check(sense)
    values = list(ratios)
    return Row(name, median(values), min(values), max(values), goal, sense)


def _check(sense: str) -> None:
    if sense not in (">=", "<="):
        raise ValueError(f"sense {sense!r}: give >= or <=")


def _ratios(ours: Callable[[], float], limit: Callable[[], float], sense: str, pairs: int) -> Iterator[float]:
    for _ in range(pairs):
        theirs, mine = limit(), ours()
        yield theirs / mine if sense == ">=" else mine / theirs
