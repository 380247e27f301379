"""Labels that contradict the vectors of their samples, by confident learning.

A probe (logistic regression) is trained on the vectors and asked about samples that it has not seen: five
folds. cleanlab then estimates how many labels of each class belong to another, and names those samples
(Northcutt, Jiang and Chuang, "Confident learning: estimating uncertainty in dataset labels", 2021).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from mm_embed_kernels.errors import UserError
from mm_embed_kernels.extras import explain_missing

FOLDS = 5
# Rows that a probe is trained on; more make it slower and hardly better.
_TRAINED_ROWS = 20_000
_BLOCK_ROWS = 16_384
# Probabilities, rows times classes, 1.6 GB: they are in memory.
_MOST_PROBABILITIES = 400_000_000
# Inverse strength of the regularization: with less of it a probe learns the wrong labels by heart.
_PENALTY = 1.0


@dataclass(frozen=True)
class LabelDoubt:
    """Verdicts on labels by probes that have not seen the samples.

    Attributes:
        suspect: whether the label belongs to another class, bool [n].
        probability: of the given label, float32 [n].
        likeliest: class with the largest probability, int64 [n].
    """

    suspect: np.ndarray[Any, Any]
    probability: np.ndarray[Any, Any]
    likeliest: np.ndarray[Any, Any]


def doubt_labels(
    read: Callable[[np.ndarray[Any, Any]], np.ndarray[Any, Any]], classes: np.ndarray[Any, Any]
) -> LabelDoubt:
    """Judge labels; the same each time.

    Args:
        read: returns the unit vectors of numbered rows, float32 [n, d].
        classes: of each row, int64 [n], from 0; at least two, each of at least `FOLDS` rows.

    Raises:
        MissingPackage: without the extra ``curate``.
        UserError: for so many rows and classes that their probabilities do not fit into memory.
    """
    with explain_missing("the rule label_suspect"):
        from cleanlab.filter import find_label_issues

    count = int(classes.max()) + 1
    if len(classes) * count > _MOST_PROBABILITIES:
        raise UserError(
            f"{len(classes):,} samples of {count:,} labels are too many to compare labels with vectors; "
            "switch the rule off, or use a label of fewer values"
        )
    probabilities = _out_of_fold(read, classes, count)
    with warnings.catch_warnings():
        # On classes that it finds no error in.
        warnings.simplefilter("ignore")
        suspect = find_label_issues(
            classes, probabilities, filter_by="prune_by_noise_rate", n_jobs=1, min_examples_per_class=0
        )
    rows = np.arange(len(classes))
    return LabelDoubt(
        np.asarray(suspect, np.bool_), probabilities[rows, classes], probabilities.argmax(axis=1)
    )


def _out_of_fold(
    read: Callable[[np.ndarray[Any, Any]], np.ndarray[Any, Any]], classes: np.ndarray[Any, Any], count: int
) -> np.ndarray[Any, Any]:
    """Return the probabilities of classes, float32 [n, count], each by a probe without that row."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold

    probabilities = np.zeros((len(classes), count), np.float32)
    generator = np.random.default_rng(0)
    for seen, unseen in StratifiedKFold(FOLDS, shuffle=True, random_state=0).split(classes, classes):
        probe = LogisticRegression(C=_PENALTY, max_iter=300)
        if len(seen) > _TRAINED_ROWS:
            seen = _thin(seen, classes, generator)
        probe.fit(read(seen), classes[seen])
        for start in range(0, len(unseen), _BLOCK_ROWS):
            rows = unseen[start : start + _BLOCK_ROWS]
            probabilities[rows[:, None], probe.classes_] = probe.predict_proba(read(rows))
    return probabilities


def _thin(
    rows: np.ndarray[Any, Any], classes: np.ndarray[Any, Any], generator: np.random.Generator
) -> np.ndarray[Any, Any]:
    """Return some of the rows, at least one of each class."""
    mixed = generator.permutation(rows)
    first = mixed[np.unique(classes[mixed], return_index=True)[1]]
    return np.unique(np.concatenate([first, mixed[:_TRAINED_ROWS]]))
