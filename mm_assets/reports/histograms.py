"""Histograms of measured signals, with the thresholds of the rules that read them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from mm_assets.cells.plots import threshold_of
from mm_embed_kernels import sql
from mm_embed_kernels.rules import Rule

BINS = 40
# Rows of a cell that are measured, chosen at random with a fixed seed.
_SAMPLE = 20_000
# The axis is logarithmic where threshold and median differ by more than this factor.
_LOG_FACTOR = 10


@dataclass(frozen=True)
class Histogram:
    """Values of a measured signal, and the threshold that a rule has for it.

    Attributes:
        low, high: ends of the axis; values beyond them count in the outermost bins.
        at: position of the threshold on the axis, 0 to 1.
        log: True for a logarithmic axis.
        counts: values in each of the `BINS` bins.
    """

    rule: str
    action: str
    column: str
    threshold: float
    low: float
    high: float
    at: float
    log: bool
    counts: list[int]


def signal_histograms(
    rules: list[Rule], read: Callable[[list[str] | None], pa.RecordBatchReader]
) -> list[Histogram]:
    """Return histograms over a sample of a cell, of each signal for which a rule has a single threshold.

    Args:
        read: streams columns (all for None) of the cell's validated samples.
    """
    present = set(read(None).schema.names)
    columns = {
        column
        for rule in rules
        for column in rule.columns
        if column not in rule.compared and column in present
    }
    if not columns:
        return []
    sampled = sql.fetch(
        f"SELECT * FROM samples USING SAMPLE reservoir({_SAMPLE} ROWS) REPEATABLE (0)",
        samples=read(sorted(columns)),
    )
    thresholds = [found for rule in rules if (found := threshold_of(rule, sampled))]
    return [
        histogram(rule.name, rule.action, column, threshold, sampled[column])
        for rule, column, threshold in thresholds
    ]


def histogram(rule: str, action: str, column: str, threshold: float, values: pa.ChunkedArray) -> Histogram:
    """Count the finite values of a signal in bins of an axis that includes the threshold."""
    numbers = values.drop_null().to_numpy().astype(float)
    numbers = numbers[np.isfinite(numbers)]
    # Quantiles, not extremes, so that few outliers do not squeeze the rest into one bin.
    low, median, high = (
        (float(value) for value in np.quantile(numbers, [0.005, 0.5, 0.995]))
        if len(numbers)
        else (threshold,) * 3
    )
    low, high = min(low, threshold), max(high, threshold)
    margin = (high - low) * 0.04 or 1.0
    low, high = low - margin if low < 0 else max(0.0, low - margin), high + margin
    unit, larger = min(threshold, median), max(threshold, median)
    log = low >= 0 and unit > 0 and larger > _LOG_FACTOR * unit

    def position(value: Any) -> Any:
        return np.log1p(value / unit) if log else value

    ends = (float(position(low)), float(position(high)))
    counts, _ = np.histogram(position(numbers.clip(low, high)), BINS, ends)
    at = (float(position(threshold)) - ends[0]) / (ends[1] - ends[0])
    return Histogram(rule, action, column, threshold, low, high, at, log, counts.tolist())
