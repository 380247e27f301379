"""Thresholds of rules over what was measured: histograms, and what another value would drop or keep."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import pyarrow as pa
import yaml

from mm_embed_kernels import sql
from mm_embed_kernels.contracts.fields import is_number
from mm_embed_kernels.curation.decisions import SPLIT_CONFLICT
from mm_embed_kernels.rules import Rule, rule_set
from mm_resources.registry.pins import Pin
from mm_resources.serving.problems import Problem
from mm_resources.serving.service import Service

_BINS = 48
# The axis ends at these shares of the values, and at the threshold where that lies beyond.
_ENDS = (0.5, 99.5)
_OTHERS = """
SELECT v.value, CASE WHEN c.rule = {conflict} THEN 1
  ELSE {count} - len(list_filter(c.passed, lambda name: name IN ({names}))) END AS others
FROM measured v JOIN curated c USING (sample_id)
"""


@dataclass(frozen=True)
class Measured:
    """The values of a rule over the samples of a cell, sorted; null ones, which pass, are left out.

    Attributes:
        samples: validated samples.
        values: float64 [n].
        free: values of the samples that no other rule drops, float64 [m].
        unmeasured: samples without a value that no other rule drops.
    """

    samples: int
    values: np.ndarray[Any, Any]
    free: np.ndarray[Any, Any]
    unmeasured: int


@dataclass(frozen=True)
class Threshold:
    """A parameter of a rule: a value that a sample must reach (``min_``), or may not exceed (``max_``)."""

    rule: str
    action: str
    parameter: str
    value: float
    is_whole: bool

    @property
    def is_least(self) -> bool:
        return self.parameter.startswith("min_")

    def failing(self, values: np.ndarray[Any, Any], value: float | None = None) -> int:
        """Return how many sorted values fail it, or another value in its place."""
        limit = self.value if value is None else value
        if self.is_least:
            return int(np.searchsorted(values, limit, "left"))
        return len(values) - int(np.searchsorted(values, limit, "right"))


def thresholds_of(service: Service, pin: Pin) -> list[Threshold]:
    """Return the thresholds of the rules of a cell's profile that judge each sample alone."""
    return [
        Threshold(
            rule.name, rule.action, item.name, float(getattr(rule, item.name)), isinstance(item.default, int)
        )
        for rule in _rules(service, pin)
        if not rule.compared
        for item in fields(rule)
        if item.name.startswith(("min_", "max_")) and isinstance(getattr(rule, item.name), int | float)
    ]


def _rules(service: Service, pin: Pin) -> list[Rule]:
    spec = service.catalog.registry.spec(pin.dataset, pin.version)
    return rule_set(pin.modality, spec.curation.rules)


def require_rule(service: Service, pin: Pin, name: str) -> str:
    """Return the name of a rule of a cell's profile; "" chooses none.

    Raises:
        Problem: for another name, which all samples would seem to fail.
    """
    known = [rule.name for rule in _rules(service, pin)]
    if name and name not in known:
        raise Problem(
            "not_found", f"{pin.dataset_version} has no rule {name[:80]!r}; there are: {', '.join(known)}"
        )
    return name


def find_threshold(service: Service, pin: Pin, rule: str, parameter: str) -> Threshold:
    """Return one threshold.

    Raises:
        Problem: where there is none of that name.
    """
    found = thresholds_of(service, pin)
    for each in found:
        if (each.rule, each.parameter) == (rule, parameter):
            return each
    names = ", ".join(f"{each.rule}.{each.parameter}" for each in found)
    raise Problem("not_found", f"no threshold {rule[:80]}.{parameter[:80]}; there are: {names}")


def measured_values(service: Service, pin: Pin, name: str) -> Measured | None:
    """Return the values of a rule over the samples of a pin; None where it measures no number."""
    return service.remember(("measured", pin.cell, pin.number, name), lambda: _measure(service, pin, name))


def _measure(service: Service, pin: Pin, name: str) -> Measured | None:
    every = _rules(service, pin)
    rule = next(each for each in every if each.name == name)
    at = pin.place("validated_samples")
    columns = ["sample_id", *rule.columns]
    kept = {"sample_id": list[Any](), "value": list[Any]()}
    for batch in service.catalog.tables.read("validated_samples", pin.cell, columns, at=at):
        value = rule.judge(pa.Table.from_batches([batch])).value
        if not is_number(value.type):
            return None
        kept["sample_id"].append(batch["sample_id"])
        kept["value"] += value.chunks if isinstance(value, pa.ChunkedArray) else [value]
    if not kept["sample_id"]:
        return None
    measured = pa.table({key: pa.chunked_array(parts) for key, parts in kept.items()})
    others = [each.name for each in every if each.action == "drop" and each.name != name]
    statement = _OTHERS.format(
        conflict=sql.literal(SPLIT_CONFLICT),
        count=len(others),
        names=", ".join(map(sql.literal, [*others, ""])),
    )
    curated = service.catalog.tables.read(
        "curated_samples",
        pin.cell,
        ["sample_id", "rule", "passed"],
        at=pin.place("curated_samples"),
    )
    found = sql.fetch(statement, measured=measured, curated=curated)
    values = found["value"].to_numpy().astype(np.float64)
    free, known = found["others"].to_numpy() <= 0, np.isfinite(values)
    return Measured(
        len(values), np.sort(values[known]), np.sort(values[known & free]), int((free & ~known).sum())
    )


def histogram_of(threshold: Threshold, measured: Measured) -> dict[str, Any] | None:
    """Return bins of a rule's values, from `low` to `high`; None without values."""
    if not len(measured.values):
        return None
    low, high = (float(end) for end in np.percentile(measured.values, _ENDS))
    low, high = min(low, threshold.value), max(high, threshold.value)
    if high <= low:
        low, high = low - 1, high + 1
    # The threshold is the edge of a bin, and a value that equals it is on the side that passes.
    step = (high - low) / (_BINS - 2)
    edges = threshold.value + (np.arange(_BINS + 1) - round((threshold.value - low) / step) - 1) * step
    low, high = float(edges[0]), float(edges[-1])
    values = measured.values if threshold.is_least else np.nextafter(measured.values, -np.inf)
    counts, _ = np.histogram(np.clip(values, low, high), edges)
    most = max(1, int(counts.max()))
    middles = (edges[:-1] + edges[1:]) / 2
    return {
        "low": low,
        "high": high,
        "step": 1 if threshold.is_whole and high - low > 20 else (high - low) / 400,
        "bars": [
            {
                "height": 100 * int(count) / most,
                "count": int(count),
                "fails": bool(middle < threshold.value if threshold.is_least else middle > threshold.value),
            }
            for count, middle in zip(counts, middles, strict=True)
        ],
        "at": 100 * (threshold.value - low) / (high - low),
    }


def what_if(service: Service, pin: Pin, rule: str, parameter: str, value: float) -> dict[str, Any]:
    """Return the counts of a cell with another value of one threshold, and the profile that has it.

    No bytes are read, and no group of duplicates is compared again.
    """
    threshold = find_threshold(service, pin, rule, parameter)
    measured = measured_values(service, pin, rule)
    if measured is None:
        raise Problem("bad_request", f"{rule} measures no number; try it by `mm curate --what-if`")
    value = float(round(value)) if threshold.is_whole else value
    drops = threshold.action == "drop"

    def kept(limit: float) -> int:
        gone = threshold.failing(measured.free, limit) if drops else 0
        return len(measured.free) + measured.unmeasured - gone

    return {
        "rule": rule,
        "parameter": parameter,
        "value": value,
        "action": threshold.action,
        "samples": measured.samples,
        "failing_now": threshold.failing(measured.values),
        "failing_then": threshold.failing(measured.values, value),
        "kept_now": kept(threshold.value),
        "kept_then": kept(value),
        "profile": _profile(service, pin, threshold, value),
        "command": f"mm curate {pin.dataset_version} --modality {pin.modality} "
        f"--what-if {rule}.{parameter}={_plain(threshold, value):g}",
    }


def _plain(threshold: Threshold, value: float) -> float | int:
    return int(value) if threshold.is_whole else float(f"{value:.6g}")


def _profile(service: Service, pin: Pin, threshold: Threshold, value: float) -> str:
    spec = service.catalog.registry.spec(pin.dataset, pin.version)
    rules = {name: dict(settings) for name, settings in spec.curation.rules.items()}
    rules.setdefault(threshold.rule, {})[threshold.parameter] = _plain(threshold, value)
    return str(yaml.safe_dump({"curation": {"rules": rules}}, sort_keys=False))
