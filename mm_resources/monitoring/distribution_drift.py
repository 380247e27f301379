"""Shifts: how the distributions of a published cell differ from those of another version of it.

Shares are compared by total variation (labels) or by the largest difference of one of them (decisions, failures), numbers
by the Kolmogorov-Smirnov statistic: all lie between 0 and 1. A difference that samples of this size show by chance once in
a hundred times is none.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from mm_embed_kernels import sql
from mm_embed_kernels.contracts.features import vectors_of
from mm_embed_kernels.spec.thresholds import DriftLimits
from mm_resources.cell import Cell
from mm_resources.registry.pins import Pin

if TYPE_CHECKING:
    from mm_resources.catalog import Catalog

SAMPLED = 20_000
VECTORS = 5_000
# Kolmogorov-Smirnov, two samples: c(0.01) (Smirnov, Annals of Mathematical Statistics, 1948).
_BY_CHANCE = 1.63
_LABELS = "SELECT label AS name, count(DISTINCT sample_id) AS n FROM rows GROUP BY label"
_DECISIONS = """
SELECT r.rule AS name, count(*) FILTER (NOT r.passed) AS n, count(*) AS total FROM (SELECT unnest(rules) AS r FROM rows) GROUP BY 1
"""
_SIGNALS = "SELECT {columns} FROM rows USING SAMPLE reservoir({rows} ROWS) REPEATABLE (0)"
Shares = dict[str, float]


@dataclass(frozen=True)
class Shift:
    """One difference between two versions.

    Attributes:
        against: the version that is the measure.
        kind: labels, decisions, signals, vectors or failures.
        what: the label, rule, signal or cause that differs most; "" where there is none.
        value: 0 (the same) to 1.
        limit: the spec's, or what chance alone makes of samples of this size, if that is more.
        before, after: what was compared, for a picture: shares by name, or sampled numbers.
    """

    against: str
    kind: str
    what: str
    value: float
    limit: float
    before: Any = field(default=None, repr=False, compare=False)
    after: Any = field(default=None, repr=False, compare=False)

    @property
    def passed(self) -> bool:
        return self.value <= self.limit

    def __str__(self) -> str:
        named = f" ({self.what})" if self.what else ""
        return f"{self.kind}{named} against {self.against}: {self.value:.3f}, the limit is {self.limit:.3f}"


def shifts(catalog: Catalog, before: Pin, after: Pin, limits: DriftLimits, name: str = "") -> Iterator[Shift]:
    """Everything that differs between two pins of one modality, one of each kind, and of signals every one that both have.

    Args:
        name: what the earlier one is called; by default its version.
    """
    name = name or f"{before.dataset}@{before.version}"
    chance = _chance(before.accounting["published"], after.accounting["published"])
    shares = [_shares(catalog, pin) for pin in (before, after)]
    if shares[0] or shares[1]:
        total = (
            sum(
                abs(shares[0].get(label, 0) - shares[1].get(label, 0)) for label in {**shares[0], **shares[1]}
            )
            / 2
        )
        yield _most(name, "labels", shares[0], shares[1], max(limits.max_label_shift, chance), total)
    listed = _chance(before.accounting["discovered"], after.accounting["discovered"])
    yield _most(
        name,
        "decisions",
        _decisions(catalog, before),
        _decisions(catalog, after),
        max(limits.max_decision_shift, listed),
    )
    yield _most(name, "failures", _failures(before), _failures(after), max(limits.max_failure_shift, listed))
    numbers = [_signals(catalog, pin) for pin in (before, after)]
    for signal in sorted(numbers[0].keys() & numbers[1].keys()):
        yield _apart(name, "signals", signal, numbers[0][signal], numbers[1][signal], limits.max_signal_shift)
    if before.primary.space == after.primary.space and before.primary.rows and after.primary.rows:
        old, new = (_vectors(catalog, pin) for pin in (before, after))
        centre = old.mean(axis=0)
        centre /= max(float(np.linalg.norm(centre)), 1e-12)
        yield _apart(
            name,
            "vectors",
            "cosine to the earlier centre",
            old @ centre,
            new @ centre,
            limits.max_vector_shift,
        )


def worst(found: Iterable[Shift]) -> list[Shift]:
    """Of each kind and reference, the shift that is largest against its limit."""
    kinds: dict[tuple[str, str], Shift] = {}
    for shift in found:
        known = kinds.setdefault((shift.against, shift.kind), shift)
        if shift.value - shift.limit > known.value - known.limit:
            kinds[shift.against, shift.kind] = shift
    return list(kinds.values())


def _most(
    name: str, kind: str, before: Shares, after: Shares, limit: float, value: float | None = None
) -> Shift:
    """The share that differs most, which decides where no `value` does."""
    differences = {each: abs(before.get(each, 0) - after.get(each, 0)) for each in {**before, **after}}
    what = max(differences, key=lambda each: (differences[each], each), default="")
    largest = differences.get(what, 0.0)
    return Shift(
        name, kind, what if largest else "", largest if value is None else value, limit, before, after
    )


def _apart(
    name: str, kind: str, what: str, before: np.ndarray[Any, Any], after: np.ndarray[Any, Any], limit: float
) -> Shift:
    """Largest difference of two samples' distribution functions."""
    every = np.sort(np.concatenate([before, after]))
    old, new = (np.searchsorted(np.sort(each), every, side="right") / len(each) for each in (before, after))
    return Shift(
        name,
        kind,
        what,
        float(np.abs(old - new).max()),
        max(limit, _chance(len(before), len(after))),
        before,
        after,
    )


def _chance(one: int, other: int) -> float:
    """The statistic that samples of these sizes reach by chance once in a hundred times, at most 1."""
    return min(1.0, _BY_CHANCE * math.sqrt((one + other) / (one * other))) if one and other else 1.0


def _shares(catalog: Catalog, pin: Pin) -> Shares:
    """Labels by the share of published samples that have them; empty where none has one."""
    found = sql.fetch(_LABELS, rows=catalog.features.rows(pin, ["sample_id", "label"])).to_pylist()
    total = sum(row["n"] for row in found)
    return (
        {row["name"] or "(none)": row["n"] / total for row in found}
        if any(row["name"] for row in found)
        else {}
    )


def _decisions(catalog: Catalog, pin: Pin) -> Shares:
    """Rules by the share of samples that do not pass them."""
    found = sql.fetch(_DECISIONS, rows=_stage(catalog, pin, "curated_samples", ["rules"])).to_pylist()
    return {row["name"]: row["n"] / row["total"] for row in found}


def _failures(pin: Pin) -> Shares:
    discovered = max(1, pin.accounting["discovered"])
    return {cause: count / discovered for cause, count in (pin.accounting.get("failures") or {}).items()}


def _signals(catalog: Catalog, pin: Pin) -> dict[str, np.ndarray[Any, Any]]:
    """What the probe measured of a sample of the cell, by signal."""
    rows = _stage(catalog, pin, "validated_samples", None)
    names = [
        item.name for item in rows.schema if pa.types.is_integer(item.type) or pa.types.is_floating(item.type)
    ]
    statement = _SIGNALS.format(columns=", ".join(f'"{name}"' for name in names), rows=SAMPLED)
    found = sql.fetch(statement, rows=rows)
    numbers = {name: found[name].drop_null().to_numpy().astype(float) for name in names}
    finite = {name: values[np.isfinite(values)] for name, values in numbers.items()}
    return {name: values for name, values in finite.items() if len(values)}


def _vectors(catalog: Catalog, pin: Pin) -> np.ndarray[Any, Any]:
    table = pin.primary
    chosen = np.sort(np.random.default_rng(0).choice(table.rows, min(VECTORS, table.rows), replace=False))
    dataset = catalog.features.dataset(table.table, table.lance_version)
    return vectors_of(dataset.take(chosen.tolist(), columns=["vector"]))


def _stage(catalog: Catalog, pin: Pin, asset: str, columns: list[str] | None) -> pa.RecordBatchReader:
    cell = Cell(pin.dataset, pin.version, pin.modality)
    return catalog.tables.read(asset, cell, columns, version=int(pin.stages[asset]["lance_version"]))
