"""The order of an epoch's rows, and the shares of ranks in what is left of it.

Seed and epoch alone determine the order. Ranks take neighbouring shares of it, so that what is left after
any number of batches is some intervals of the order, which any other number of ranks can share anew: each
row comes once an epoch, however often training stops and goes on elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from mm_embed_kernels.errors import UserError

# Shuffling permutes runs of neighbouring rows, then the rows of all runs of a window. Runs are read at the
# cost of a scan, and the rows of a batch come from up to 32 runs of the set, drawn again each epoch; a set of
# at most one window is shuffled completely. A larger window would take memory that the allocator gets from
# the system again each time.
RUN_ROWS = 256
WINDOW_ROWS = 8_192
# Windows whose order a pass has in memory: those of some threads that read ahead.
_WINDOWS = 16
Interval = tuple[int, int]
Draw = Callable[[int], np.ndarray[Any, Any]]


class EpochOrder:
    """The order of the rows of each epoch.

    Args:
        rows: rows of an epoch.
        shuffle: whether they are shuffled, again for each epoch.
        seed: of the order.
        draw: returns the rows of an epoch by their numbers in the set, ascending, int64 [rows]; by default
            all.
    """

    def __init__(self, rows: int, shuffle: bool, seed: int, draw: Draw | None = None) -> None:
        self.rows, self.shuffle, self.seed, self.draw = rows, shuffle, seed, draw
        self.run_rows, self.window_rows = RUN_ROWS, WINDOW_ROWS

    @property
    def description(self) -> str:
        """Description of everything that determines the order, except the epoch and the set."""
        runs = f"in runs of {self.run_rows} and windows of {self.window_rows} rows"
        shuffled = f"shuffled with seed {self.seed} {runs}" if self.shuffle else "as stored"
        return f"{self.rows} rows {shuffled}"

    def epoch(self, number: int) -> Callable[[list[Interval]], np.ndarray[Any, Any]]:
        """Return a function that returns the numbers of the rows in intervals of an epoch's order, int64."""
        starts = np.arange(0, self.rows, self.run_rows)
        runs = np.random.default_rng((self.seed, number)).permutation(starts) if self.shuffle else starts
        drawn = self.draw(number) if self.draw else None

        # A window is asked for batch by batch, by several threads; permuting it each time took a seventh of
        # the CPU time of an epoch.
        @lru_cache(maxsize=_WINDOWS)
        def window_of(place: int) -> np.ndarray[Any, Any]:
            return self._window(runs, number, place)

        def numbers(intervals: list[Interval]) -> np.ndarray[Any, Any]:
            pieces = _windows(intervals, self.window_rows)
            parts = [window_of(place)[start:stop] for place, start, stop in pieces]
            chosen = np.concatenate([*parts, np.empty(0, np.int64)]).astype(np.int64)
            return chosen if drawn is None else drawn[chosen]

        return numbers

    def _window(self, runs: np.ndarray[Any, Any], epoch: int, window: int) -> np.ndarray[Any, Any]:
        """Return the rows of a window of the order."""
        first = window * self.window_rows
        chosen = self._rows_between(runs, first, min(first + self.window_rows, self.rows))
        if self.shuffle:
            chosen = np.random.default_rng((self.seed, epoch, window)).permutation(chosen)
        return chosen

    def _rows_between(self, runs: np.ndarray[Any, Any], start: int, stop: int) -> np.ndarray[Any, Any]:
        """Return the rows from `start` to `stop` of the order, run by run."""
        size = self.run_rows
        # Only the last run of the set may be shorter; the runs behind it in the order move up by its missing
        # rows.
        missing = -self.rows % size
        short = int(np.argmax(runs)) if missing else len(runs)
        first = start // size
        chosen = runs[first : (stop + missing) // size + 1]
        rows = (chosen[:, None] + np.arange(size)).reshape(-1)
        before = first * size - (missing if short < first else 0)
        return rows[rows < self.rows][start - before : stop - before]


def _windows(intervals: list[Interval], size: int) -> list[tuple[int, int, int]]:
    """Return intervals cut at windows: number of the window, start and stop of each piece inside it."""
    return [
        (window, max(start - window * size, 0), min(stop - window * size, size))
        for start, stop in intervals
        for window in range(start // size, -(-stop // size))
    ]


@dataclass(frozen=True)
class Shares:
    """The shares of ranks in what is left of an epoch; each has the same number of batches.

    Attributes:
        left: intervals of the order.
        batch_size: rows of a batch; the last one of a share has fewer, or one more where shares are not
            equal.
        world_size: number of ranks.
        drop_last: whether rows that do not fill a batch on each rank are left out.
    """

    left: list[Interval]
    batch_size: int
    world_size: int
    drop_last: bool = False

    @property
    def rows(self) -> int:
        """Number of rows that are left."""
        return sum(stop - start for start, stop in self.left)

    @property
    def batches(self) -> int:
        """Number of batches of each rank."""
        each = self.rows // self.world_size
        return each // self.batch_size if self.drop_last else -(-each // self.batch_size)

    def check(self) -> None:
        """Check that each rank has a row.

        Raises:
            UserError: where some would have none, and wait for the others without end.
        """
        if 0 < self.rows < self.world_size:
            raise UserError(
                f"{self.rows} rows give none to some of {self.world_size} ranks; use fewer ranks or more rows"
            )
        if self.rows and self.drop_last and not self.batches:
            raise UserError(
                f"{self.rows} rows do not fill a batch of {self.batch_size} on each of {self.world_size} "
                f"ranks; use batches of at most {self.rows // self.world_size} rows, or drop_last=False"
            )

    def bounds(self, rank: int) -> Interval:
        """Return the share of a rank, in rows that are left."""
        each, more = divmod(self.rows, self.world_size)
        start = rank * each + min(rank, more)
        return start, start + each + (rank < more)

    def batch(self, rank: int, number: int) -> Interval:
        """Return a batch of a rank, in rows that are left."""
        start, stop = self.bounds(rank)
        begin = start + number * self.batch_size
        is_last = number == self.batches - 1 and not self.drop_last
        return begin, stop if is_last else begin + self.batch_size

    def places(self, start: int, stop: int) -> list[Interval]:
        """Return rows that are left, from `start` to `stop`, as intervals of the order."""
        found, before = [], 0
        for first, end in self.left:
            own = max(first, first + start - before), min(end, first + stop - before)
            if own[0] < own[1]:
                found.append(own)
            before += end - first
        return found

    def after(self, batches: int) -> list[Interval]:
        """Return what is left once each rank has taken so many batches."""
        if batches >= self.batches:
            return []
        found: list[Interval] = []
        for rank in range(self.world_size):
            start, stop = self.bounds(rank)
            for first, end in self.places(start + batches * self.batch_size, stop):
                if found and found[-1][1] == first:
                    found[-1] = (found[-1][0], end)
                else:
                    found.append((first, end))
        return found
