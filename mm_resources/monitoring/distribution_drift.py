"""Distribution drift: differences between the distributions of two published versions of a cell.

Labels are compared by total variation, decisions and failures by the largest difference of one share, numbers
by the Kolmogorov-Smirnov statistic: all lie between 0 and 1. A difference that chance alone reaches once in a
hundred times at this number of samples is no drift.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from mm_embed_kernels import sql
from mm_embed_kernels.contracts.features import vectors_of
from mm_embed_kernels.spec.thresholds import DriftLimits
from mm_resources.catalog import Catalog
from mm_resources.registry.pins import Pin

# Samples whose signals, and features whose vectors, are compared.
SAMPLED = 20_000
VECTORS = 5_000
# Kolmogorov-Smirnov, two samples: c(0.01) (Smirnov, Annals of Mathematical Statistics, 1948).
_BY_CHANCE = 1.63
_LABELS = "SELECT label AS name, count(DISTINCT sample_id) AS n FROM rows GROUP BY label"
_DECISIONS = """
SELECT r.rule AS name, count(*) FILTER (NOT r.passed) AS n, count(*) AS total
FROM (SELECT unnest(rules) AS r FROM rows) GROUP BY 1
"""
_SIGNALS = "SELECT {columns} FROM rows USING SAMPLE reservoir({rows} ROWS) REPEATABLE (0)"
Shares = dict[str, float]


@dataclass(frozen=True)
class DistributionDrift:
    """One difference between two versions.

    Attributes:
        against: the version that the newer one is compared with.
        kind: labels, decisions, signals, vectors or failures.
        what: the label, rule, signal or cause with the largest difference; "" where there is none.
        value: 0 (no difference) to 1.
        limit: the spec's limit, or the difference that chance reaches at these sample sizes, if that is
            larger.
        before, after: the compared distributions, for a plot: shares by name, or sampled numbers.
    """

    against: str
    kind: str
    what: str
    value: float
    limit: float
    before: Any = field(default=None, repr=False, compare=False)
    after: Any = field(default=None, repr=False, compare=False)

    @property
    def is_within_limit(self) -> bool:
        """Return whether the difference is within its limit."""
        return self.value <= self.limit

    def __str__(self) -> str:
        named = f" ({self.what})" if self.what else ""
        return f"{self.kind}{named} against {self.against}: {self.value:.3f}, the limit is {self.limit:.3f}"


def distribution_drifts(
    catalog: Catalog, before: Pin, after: Pin, limits: DriftLimits, name: str = ""
) -> Iterator[DistributionDrift]:
    """Compare two pins of one modality; yield a drift of each kind, and one for each signal that both have.

    Args:
        name: name of the earlier version in the drifts; by default DATASET@VERSION.
    """
    name = name or before.dataset_version
    yield from _label_drift(catalog, before, after, limits, name)
    chance = _chance(before.accounting["discovered"], after.accounting["discovered"])
    yield _share_drift(
        name,
        "decisions",
        _decisions(catalog, before),
        _decisions(catalog, after),
        max(limits.max_decision_shift, chance),
    )
    limit = max(limits.max_failure_shift, chance)
    yield _share_drift(name, "failures", _failures(before), _failures(after), limit)
    old, new = (_signals(catalog, pin) for pin in (before, after))
    for signal in sorted(old.keys() & new.keys()):
        yield _number_drift(name, "signals", signal, old[signal], new[signal], limits.max_signal_shift)
    yield from _vector_drift(catalog, before, after, limits, name)


def _label_drift(
    catalog: Catalog, before: Pin, after: Pin, limits: DriftLimits, name: str
) -> Iterator[DistributionDrift]:
    old, new = (_labels(catalog, pin) for pin in (before, after))
    if old or new:
        variation = sum(abs(old.get(label, 0) - new.get(label, 0)) for label in {**old, **new}) / 2
        chance = _chance(before.accounting["published"], after.accounting["published"])
        yield _share_drift(name, "labels", old, new, max(limits.max_label_shift, chance), variation)


def _vector_drift(
    catalog: Catalog, before: Pin, after: Pin, limits: DriftLimits, name: str
) -> Iterator[DistributionDrift]:
    """Compare the cosines of both versions' vectors to the mean vector of the earlier one."""
    if before.primary.space == after.primary.space and before.primary.rows and after.primary.rows:
        old, new = (_vectors(catalog, pin) for pin in (before, after))
        center = old.mean(axis=0)
        center /= max(float(np.linalg.norm(center)), 1e-12)
        what = "cosine to the earlier center"
        yield _number_drift(name, "vectors", what, old @ center, new @ center, limits.max_vector_shift)


def largest_drifts(drifts: Iterable[DistributionDrift]) -> list[DistributionDrift]:
    """Return, for each kind and reference, the drift that exceeds its limit most."""
    largest: dict[tuple[str, str], DistributionDrift] = {}
    for drift in drifts:
        other = largest.setdefault((drift.against, drift.kind), drift)
        if drift.value - drift.limit > other.value - other.limit:
            largest[drift.against, drift.kind] = drift
    return list(largest.values())


def _share_drift(
    name: str, kind: str, before: Shares, after: Shares, limit: float, value: float | None = None
) -> DistributionDrift:
    """Return the drift of shares by name.

    Args:
        value: the difference of the distributions; by default that of the share that differs most.
    """
    differences = {each: abs(before.get(each, 0) - after.get(each, 0)) for each in {**before, **after}}
    what = max(differences, key=lambda each: (differences[each], each), default="")
    largest = differences.get(what, 0.0)
    return DistributionDrift(
        name, kind, what if largest else "", largest if value is None else value, limit, before, after
    )


def _number_drift(
    name: str, kind: str, what: str, before: np.ndarray[Any, Any], after: np.ndarray[Any, Any], limit: float
) -> DistributionDrift:
    """Return the largest difference between the distribution functions of two samples of numbers."""
    every = np.sort(np.concatenate([before, after]))
    old, new = (np.searchsorted(np.sort(each), every, side="right") / len(each) for each in (before, after))
    statistic = float(np.abs(old - new).max())
    return DistributionDrift(
        name, kind, what, statistic, max(limit, _chance(len(before), len(after))), before, after
    )


def _chance(one: int, other: int) -> float:
    """Return the statistic that chance reaches once in a hundred times at these sample sizes, at most 1."""
    return min(1.0, _BY_CHANCE * math.sqrt((one + other) / (one * other))) if one and other else 1.0


def _labels(catalog: Catalog, pin: Pin) -> Shares:
    """Return the share of published samples with each label; empty where no sample has one."""
    counts = sql.fetch(_LABELS, rows=catalog.features.rows(pin, ["sample_id", "label"])).to_pylist()
    if not any(row["name"] for row in counts):
        return {}
    total = sum(row["n"] for row in counts)
    return {row["name"] or "(none)": row["n"] / total for row in counts}


def _decisions(catalog: Catalog, pin: Pin) -> Shares:
    """Return the share of samples that each rule rejects."""
    counts = sql.fetch(_DECISIONS, rows=_stage(catalog, pin, "curated_samples", ["rules"])).to_pylist()
    return {row["name"]: row["n"] / row["total"] for row in counts}


def _failures(pin: Pin) -> Shares:
    """Return the share of samples that each cause of failure has."""
    discovered = max(1, pin.accounting["discovered"])
    return {cause: count / discovered for cause, count in (pin.accounting.get("failures") or {}).items()}


def _signals(catalog: Catalog, pin: Pin) -> dict[str, np.ndarray[Any, Any]]:
    """Return the probe's finite numbers for a sample of the cell, by signal."""
    rows = _stage(catalog, pin, "validated_samples", None)
    names = [
        item.name for item in rows.schema if pa.types.is_integer(item.type) or pa.types.is_floating(item.type)
    ]
    statement = _SIGNALS.format(columns=", ".join(f'"{name}"' for name in names), rows=SAMPLED)
    sample = sql.fetch(statement, rows=rows)
    numbers = {name: sample[name].drop_null().to_numpy().astype(float) for name in names}
    finite = {name: values[np.isfinite(values)] for name, values in numbers.items()}
    return {name: values for name, values in finite.items() if len(values)}


def _vectors(catalog: Catalog, pin: Pin) -> np.ndarray[Any, Any]:
    table = pin.primary
    chosen = np.sort(np.random.default_rng(0).choice(table.rows, min(VECTORS, table.rows), replace=False))
    dataset = catalog.features.dataset(table.table, table.lance_version)
    return vectors_of(dataset.take(chosen.tolist(), columns=["vector"]))


def _stage(catalog: Catalog, pin: Pin, asset: str, columns: list[str] | None) -> pa.RecordBatchReader:
    cell = pin.cell
    return catalog.tables.read(asset, cell, columns, at=pin.place(asset))
