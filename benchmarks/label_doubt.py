"""Find labels that were spoiled on purpose, beside a probe that doubts each label it would not have given.

Run: .venv/bin/python -m benchmarks.label_doubt

The vectors are real ones that come with scikit-learn: pictures of digits, cells of tumours, wines. Labels are
spoiled at random, or always to the same other class, as people confuse them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from benchmarks import ratios
from benchmarks.ratios import Row
from mm_embed_kernels.selection.label_doubt import doubt_labels

_SHARES = (0.05, 0.1, 0.2)
_SEEDS = range(3)
_SETS = ("digits", "breast_cancer", "wine")


def main() -> None:
    """Print precision and recall of both for each set, share and kind of spoiling."""
    for name in _SETS:
        for share in _SHARES:
            for alike in (False, True):
                ours, baseline = _measure(name, share, alike)
                kind = "to one class" if alike else "at random"
                print(
                    f"{name}, {share:.0%} {kind}: precision {ours[0]:.2f}, recall {ours[1]:.2f}; "
                    f"baseline {baseline[0]:.2f}, {baseline[1]:.2f}",
                    flush=True,
                )


def rows(share: float) -> Iterator[Row]:  # noqa: ARG001 - the sets are small
    """Yield precision and recall, and precision over the baseline's, where a tenth was spoiled at random."""
    for name in _SETS:
        ours, baseline = _measure(name, 0.1, alike=False)
        what = f"label_suspect, {name}, a tenth spoiled"
        yield ratios.row(f"{what}, precision", [ours[0]], goal=0.75, sense=">=")
        yield ratios.row(f"{what}, recall", [ours[1]], goal=0.75, sense=">=")
        yield ratios.row(f"{what}, precision over a probe's", [ours[0] / baseline[0]], goal=1, sense=">=")


def _measure(name: str, share: float, alike: bool) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Return mean precision and recall over the seeds, of the rule's method and of the baseline."""
    vectors, classes = _load(name)
    ours, baseline = [], []
    for seed in _SEEDS:
        spoiled, given = _spoil(classes, share, alike, seed)
        doubt = doubt_labels(lambda rows: vectors[rows], given)
        ours.append(_score(doubt.suspect, spoiled))
        baseline.append(_score(doubt.likeliest != given, spoiled))
    return np.mean(ours, axis=0), np.mean(baseline, axis=0)


def _load(name: str) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Return unit vectors of scaled measurements, float32 [n, d], and classes, int64 [n]."""
    from sklearn import datasets
    from sklearn.preprocessing import StandardScaler

    values, classes = getattr(datasets, f"load_{name}")(return_X_y=True)
    scaled = StandardScaler().fit_transform(values)
    norms = np.maximum(np.linalg.norm(scaled, axis=1, keepdims=True), 1e-9)
    return (scaled / norms).astype(np.float32), classes.astype(np.int64)


def _spoil(
    classes: np.ndarray[Any, Any], share: float, alike: bool, seed: int
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Return which labels are spoiled, bool [n], and all labels, int64 [n]."""
    dice = np.random.default_rng(seed)
    kinds = int(classes.max()) + 1
    spoiled = np.zeros(len(classes), bool)
    spoiled[dice.choice(len(classes), round(share * len(classes)), replace=False)] = True
    steps = np.ones(len(classes), np.int64) if alike else dice.integers(1, kinds, len(classes))
    return spoiled, np.where(spoiled, (classes + steps) % kinds, classes)


def _score(found: np.ndarray[Any, Any], spoiled: np.ndarray[Any, Any]) -> tuple[float, float]:
    hits = int((found & spoiled).sum())
    return hits / max(1, int(found.sum())), hits / int(spoiled.sum())


if __name__ == "__main__":
    main()
