"""Ratios against a limit measured alternately in the same run: what every line of `make bench` is made of.

A module of this folder that has a function ``rows(share: float) -> Iterator[Row]`` is part of the suite; `share` scales the
work of the table in issue and README down for a look (1.0 is the work that the goal speaks of).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from statistics import median

# Pairs of a row for which its module names no number of its own: what `--pairs` sets.
PAIRS = 3


@dataclass(frozen=True)
class Row:
    """One line: a ratio, its spread, and what it should be.

    Attributes:
        name: the work, as the README's table calls it.
        ratio: median of the pairs.
        low: the smallest of them.
        high: the largest of them.
        goal: what it should reach; None where nothing was promised.
        sense: ``>=`` where more is better (a rate over the limit's), ``<=`` where less is (a time over the limit's).
    """

    name: str
    ratio: float
    low: float
    high: float
    goal: float | None
    sense: str

    @property
    def met(self) -> bool:
        return self.goal is None or (
            self.ratio >= self.goal if self.sense == ">=" else self.ratio <= self.goal
        )


def paired(
    name: str,
    ours: Callable[[], float],
    limit: Callable[[], float],
    *,
    goal: float | None,
    sense: str,
    pairs: int | None = None,
) -> Row:
    """The limit and ours by turns, each call doing the whole work once and giving its seconds.

    Raises:
        ValueError: for a sense that is neither ``>=`` nor ``<=``.
    """
    _check(sense)
    return row(name, _ratios(ours, limit, sense, PAIRS if pairs is None else pairs), goal=goal, sense=sense)


def row(name: str, found: Iterable[float], *, goal: float | None, sense: str) -> Row:
    """A row of ratios that were measured in one go with others (two percentiles of the same answers, say).

    Raises:
        ValueError: for a sense that is neither ``>=`` nor ``<=``.
    """
    _check(sense)
    ratios = list(found)
    return Row(name, median(ratios), min(ratios), max(ratios), goal, sense)


def _check(sense: str) -> None:
    if sense not in (">=", "<="):
        raise ValueError(f"sense {sense!r}: give >= or <=")


def _ratios(ours: Callable[[], float], limit: Callable[[], float], sense: str, pairs: int) -> Iterator[float]:
    for _ in range(pairs):
        theirs, mine = limit(), ours()
        yield theirs / mine if sense == ">=" else mine / theirs
