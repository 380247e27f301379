"""Picks: samples of a published version that are chosen by their vectors, recorded with their evidence."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from mm_embed_kernels.errors import UserError, unknown_choice
from mm_embed_kernels.identity import digest
from mm_embed_kernels.selection.methods import METHODS, Choice
from mm_embed_kernels.selection.rounds import Selection, share_out
from mm_resources.catalog import Catalog
from mm_resources.registry.pins import Pin
from mm_resources.retrieval.sample_vectors import SampleVectors

LABEL = "label"
# Samples on which the distance to the nearest pick is measured.
_MEASURED = 20_000
_REASONS = {
    "diversity": "farthest from all before it, cosine distance {value:.4f}",
    "coverage": "brings {value:.4f} of similarity to samples that no earlier one is as near to",
    "typicality": "most typical of its cluster, typicality {value:.4f}",
    "random": "drawn at random",
}


@dataclass(frozen=True)
class PickRequest:
    """A request for a pick.

    Attributes:
        count: samples.
        method: one of `METHODS`.
        per_label: whether each label has a quota; equal ones, beside `quotas`.
        quotas: label -> samples.
        where: SQL over the feature columns that samples must pass.
        seed: of the methods that draw.
    """

    count: int
    method: str = "diversity"
    per_label: bool = False
    quotas: Mapping[str, int] | None = None
    where: str | None = None
    seed: int = 0


@dataclass(frozen=True)
class PickSummary:
    """Counts and distances of a pick.

    Attributes:
        samples: candidates.
        picked: samples that were picked; fewer than asked for where the labels have no more.
        labels: label -> picked samples; {} without quotas.
        distance: mean cosine distance of samples to the nearest picked one, on up to 20,000 samples.
        largest_distance: the largest one among these.
        random_distance, random_largest_distance: the same of as many samples drawn at random.
    """

    name: str
    samples: int
    picked: int
    labels: dict[str, int]
    distance: float
    largest_distance: float
    random_distance: float
    random_largest_distance: float


def parse_by(by: str) -> tuple[str, bool]:
    """Return method and whether labels have quotas, of a text such as ``diversity,label``.

    Raises:
        UserError: for another word, or several methods.
    """
    words = [word.strip() for word in by.split(",") if word.strip()]
    for word in words:
        if word not in (*METHODS, LABEL):
            raise unknown_choice("--by", word, [*METHODS, LABEL])
    methods = [word for word in words if word != LABEL]
    if len(methods) > 1:
        raise UserError(f"--by names several methods: {', '.join(methods)}; name one, and label beside it")
    return (methods or ["random"])[0], LABEL in words


def pick(catalog: Catalog, pin: Pin, name: str, request: PickRequest) -> PickSummary:
    """Choose samples of a published cell by their vectors, and record them.

    The table is read three times: ids, vectors, and the vectors of what is measured; memory holds ids, labels
    and twice the picked vectors.

    Raises:
        UserError: for a name that exists, a label that no sample has, or a filter that admits none.
    """
    catalog.picks.require_new(pin.cell, name)
    samples = SampleVectors(catalog, pin, request.where)
    if not len(samples):
        raise UserError(f"no sample of {pin.cell.partition_key} passes the filter {request.where!r}")
    labels = samples.labels if request.per_label else np.full(len(samples), "", object)
    quotas = _quotas(request, labels)
    choices = _choose(samples, labels, request.method, quotas, request.seed)
    rows = _rows(samples, choices, request, quotas, pin)
    measured = _measure(samples, np.concatenate([choice.rows for choice in choices.values()]))
    catalog.picks.create(pin.cell, name, rows)
    found = {str(label): len(choice.rows) for label, choice in choices.items()}
    return PickSummary(name, len(samples), rows.num_rows, found if request.per_label else {}, *measured)


def _quotas(request: PickRequest, labels: np.ndarray[Any, Any]) -> dict[Any, int]:
    available = dict(Counter(labels.tolist()))
    fixed = dict(request.quotas or {})
    for label in fixed:
        if label not in available:
            raise unknown_choice("--quota: label", label, sorted(map(str, available)))
    return share_out(request.count, available, fixed)


def _choose(
    samples: SampleVectors, labels: np.ndarray[Any, Any], method: str, quotas: dict[Any, int], seed: int
) -> dict[Any, Choice]:
    selection = Selection(METHODS[method], quotas, dict(Counter(labels.tolist())), seed)
    for numbers, vectors in samples.blocks():
        selection.add(numbers, labels[numbers], vectors)
    return selection.finish()


def _rows(
    samples: SampleVectors, choices: dict[Any, Choice], request: PickRequest, quotas: dict[Any, int], pin: Pin
) -> pa.Table:
    """Return the rows of `PICKS` that name no cell."""
    rows = []
    for label, choice in choices.items():
        # A label is a user's content, which a record of the ledger does not repeat.
        of = f"; one of {quotas[label]:,} of its label" if request.per_label else ""
        stratum = digest("label", str(label))[:32] if request.per_label else None
        for rank, (number, value, stands_for) in enumerate(
            zip(choice.rows.tolist(), choice.values.tolist(), choice.stands_for.tolist(), strict=True), 1
        ):
            rows.append(
                {
                    "sample_id": samples.ids[number].decode(),
                    "rank": rank,
                    "method": request.method,
                    "value": float(value),
                    "stands_for": float(stands_for),
                    "stratum": stratum,
                    "reason": _REASONS[request.method].format(value=value) + of,
                    "pin": pin.number,
                }
            )
    return pa.Table.from_pylist(rows)


def _measure(samples: SampleVectors, picked: np.ndarray[Any, Any]) -> tuple[float, float, float, float]:
    """Return mean and largest distance to the nearest of the picked samples, and of random ones."""
    generator = np.random.default_rng(0)
    drawn = generator.choice(len(samples), min(len(picked), len(samples)), replace=False)
    tested = generator.choice(len(samples), min(_MEASURED, len(samples)), replace=False)
    parts = {"picked": picked, "drawn": drawn, "tested": tested}
    masks = {name: np.isin(np.arange(len(samples)), rows) for name, rows in parts.items()}
    found: dict[str, list[np.ndarray[Any, Any]]] = {name: [] for name in parts}
    for numbers, vectors in samples.blocks():
        for name, mask in masks.items():
            found[name].append(vectors[mask[numbers]])
    whole = {name: np.concatenate(each) for name, each in found.items()}
    figures: list[float] = []
    for name in ("picked", "drawn"):
        nearest = np.full(len(whole["tested"]), -1.0, np.float32)
        for start in range(0, len(whole[name]), 1_024):
            near = whole["tested"] @ whole[name][start : start + 1_024].T
            np.maximum(nearest, near.max(axis=1), out=nearest)
        distance = np.maximum(0.0, 1.0 - nearest.astype(np.float64))
        figures += [float(distance.mean()), float(distance.max())]
    return figures[0], figures[1], figures[2], figures[3]
