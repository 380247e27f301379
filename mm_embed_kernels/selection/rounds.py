"""Selection from a stream of vectors in two rounds: from each block, then from what the blocks have chosen.

After Mirzasoleiman et al., "Distributed submodular maximization" (2013) and Malkomes et al., "Fast
distributed k-center clustering with outliers on massive data" (2015). Memory holds the blocks that are being
filled and the candidates, about twice the number of rows to choose. A block hands on twice its share, not the
whole number as in their proofs: the result is close to that of one round, without its guarantee.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np

from mm_embed_kernels.selection.methods import Choice, Method, Vectors

BLOCK_ROWS = 4_096
# Rows of all blocks that are being filled; beyond, the fullest one is cut short.
_WAITING_ROWS = 65_536
# Candidates of a block as a multiple of its share, and the fewest.
_SURPLUS, _LEAST = 2.0, 16


@dataclass
class _Stratum:
    """The rows of one label on their way: a block that is being filled, and the candidates of full ones."""

    quota: int
    total: int
    rows: list[np.ndarray[Any, Any]] = field(default_factory=list)
    vectors: list[Vectors] = field(default_factory=list)
    waiting: int = 0
    # Rows, vectors, weights and values of the candidates of each block.
    chosen: list[tuple[np.ndarray[Any, Any], ...]] = field(default_factory=list)
    reduced: bool = False


class Selection:
    """Chooses rows of a stream, so many of each label.

    Args:
        method: one of `METHODS`.
        quotas: label -> rows to choose.
        totals: label -> rows in the stream.
        seed: of the methods that draw.
    """

    def __init__(self, method: Method, quotas: dict[Any, int], totals: dict[Any, int], seed: int = 0) -> None:
        self._method, self._generator = method, np.random.default_rng(seed)
        self._strata = {
            label: _Stratum(min(quota, totals[label]), totals[label])
            for label, quota in quotas.items()
            if quota > 0
        }
        self._waiting = 0

    def add(self, rows: np.ndarray[Any, Any], labels: np.ndarray[Any, Any], vectors: Vectors) -> None:
        """Add rows of the stream.

        Args:
            rows: their numbers, int64 [n].
            labels: object [n].
            vectors: unit vectors, float32 [n, d].
        """
        for label, places in _places(labels).items():
            stratum = self._strata.get(label)
            if stratum is None:
                continue
            for start in range(0, len(places), BLOCK_ROWS):
                part = places[start : start + BLOCK_ROWS]
                stratum.rows.append(rows[part])
                stratum.vectors.append(vectors[part])
                stratum.waiting += len(part)
                self._waiting += len(part)
                if stratum.waiting >= BLOCK_ROWS:
                    self._reduce(stratum)
        while self._waiting > _WAITING_ROWS:
            self._reduce(max(self._strata.values(), key=lambda each: each.waiting))

    def _reduce(self, stratum: _Stratum) -> None:
        """Choose the candidates of a block."""
        rows, vectors = np.concatenate(stratum.rows), np.concatenate(stratum.vectors)
        self._waiting -= stratum.waiting
        share = stratum.quota * len(rows) / stratum.total
        count = min(len(rows), max(_LEAST, int(np.ceil(_SURPLUS * share))))
        stratum.rows, stratum.vectors, stratum.waiting = [], [], 0
        weights, values = np.ones(len(rows)), np.zeros(len(rows))
        # Rows of one block alone are chosen from in one round.
        if len(rows) < stratum.total:
            stratum.reduced = True
            choice = self._method(vectors, weights, count, self._generator, None)
            rows, vectors, weights = rows[choice.rows], vectors[choice.rows], choice.stands_for
            values = choice.values
        stratum.chosen.append((rows, vectors, weights, values))

    def finish(self) -> dict[Any, Choice]:
        """Return the choice of each label, by the numbers of the stream; fewer where there are no more."""
        found = {}
        for label, stratum in self._strata.items():
            if stratum.waiting:
                self._reduce(stratum)
            if not stratum.chosen:
                continue
            rows, vectors, weights, values = map(np.concatenate, zip(*stratum.chosen, strict=True))
            stratum.chosen, known = [], values if stratum.reduced else None
            count = min(stratum.quota, len(rows))
            choice = self._method(vectors, weights, count, self._generator, known)
            found[label] = Choice(rows[choice.rows], choice.values, choice.stands_for)
        return found


def _places(labels: np.ndarray[Any, Any]) -> dict[Any, np.ndarray[Any, Any]]:
    """Return the places of each label."""
    names, codes = np.unique(labels.astype(str), return_inverse=True)
    order = np.argsort(codes, kind="stable")
    edges = np.searchsorted(codes[order], np.arange(len(names) + 1))
    return {labels[order[start]]: order[start:end] for start, end in pairwise(edges) if end > start}


def share_out(total: int, available: dict[Any, int], fixed: dict[Any, int]) -> dict[Any, int]:
    """Divide a number of rows among labels equally; what a small label lacks goes to the others.

    Args:
        total: rows to choose.
        available: rows of each label.
        fixed: label -> rows that are given; the others share what is left.
    """
    quotas = {label: min(fixed[label], available[label]) for label in fixed}
    rest = max(0, total - sum(quotas.values()))
    open_labels = sorted(
        (label for label in available if label not in fixed), key=lambda each: (available[each], str(each))
    )
    for number, label in enumerate(open_labels):
        quotas[label] = min(available[label], rest // (len(open_labels) - number))
        rest -= quotas[label]
    return quotas
