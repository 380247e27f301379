"""Plots of a cell for its asset pages: counts, measured signals and vectors, never a sample's content."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa

from mm_embed_kernels.contracts.fields import is_number
from mm_embed_kernels.escapes import escape_terminal
from mm_embed_kernels.rules import Rule
from mm_resources.costs.figures import format_amount
from mm_resources.monitoring.distribution_drift import DistributionDrift

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_BLUE, _RED, _GRAY = "#4f6bed", "#d1453b", "#8a8f98"
# Characters of a label; an array of texts takes the longest one's for each.
_LABEL = 60
# Number of distinct colors; rarer labels share the last one.
_LABELS = 9
_BINS = 40
# Width of a figure.
_INCHES = 7.0
# Mean width of a letter, as a share of the font size.
_LETTER = 0.65
# A tick takes as long as a bar, and a title whose place has to be found as long as a panel.
_TICKS, _ABOVE = 4, 1.0
# One polygon for all bins takes half the time of a bar for each.
_OUTLINE: Literal["stepfilled"] = "stepfilled"


def _escape_label(label: str) -> str:
    """Return a label that matplotlib draws as it is: no formula, not hidden."""
    return " " + escape_terminal(label).replace("$", r"\$") if label else " "


def funnel(counts: Mapping[str, int]) -> bytes:
    """Draw the number of samples that reached each step as bars, as PNG."""
    figure = _figure(0.45 * len(counts) + 0.6, left=_width(counts, size=10), bottom=0.1)
    axes = figure.subplots()
    names, values = list(counts), list(counts.values())
    bars = axes.barh(names[::-1], values[::-1], color=_BLUE)
    axes.bar_label(bars, labels=[f"{value:,}" for value in values[::-1]], padding=4)
    axes.spines[["top", "right", "bottom"]].set_visible(False)
    axes.set_xticks([])
    axes.margins(x=0.15)
    return _png(figure)


def costs(stages: Mapping[str, float], saved: Mapping[str, float], currency: str) -> bytes:
    """Draw the cost of each stage and, in another color, the savings of each cause as bars, as PNG."""
    bars = [(name, price, _BLUE) for name, price in stages.items()]
    bars += [(f"saved by {name}", price, _GRAY) for name, price in saved.items()]
    figure = _figure(0.3 * len(bars) + 0.8, left=_width([name for name, _, _ in bars], size=8), bottom=0.1)
    axes = figure.subplots()
    names, prices, colors = zip(*bars[::-1], strict=True)
    drawn = axes.barh(names, prices, color=colors)
    axes.bar_label(drawn, labels=[format_amount(price) for price in prices], padding=4, fontsize=8)
    axes.set_title(f"{currency}, over all runs", fontsize=9, loc="left", y=_ABOVE)
    axes.spines[["top", "right", "bottom"]].set_visible(False)
    axes.tick_params(labelsize=8)
    axes.set_xticks([])
    axes.margins(x=0.15)
    return _png(figure)


def histograms(signals: pa.Table, rules: Sequence[Rule]) -> bytes | None:
    """Draw a histogram of each signal that has a threshold, as PNG; None where no rule has one."""
    drawn = [found for rule in rules if (found := threshold_of(rule, signals))]
    if not drawn:
        return None
    figure = _figure(2.2 * len(drawn))
    for axes, (rule, column, threshold) in zip(
        figure.subplots(len(drawn), squeeze=False)[:, 0], drawn, strict=True
    ):
        values = signals[column].drop_null().to_numpy().astype(float)
        axes.hist(values, bins=_edges(values), color=_BLUE, histtype=_OUTLINE)
        axes.axvline(threshold, color=_RED)
        _finish(axes, f"{column}: {rule.name} at {threshold:g} ({rule.action})")
        axes.locator_params(nbins=_TICKS)
    return _png(figure)


def threshold_of(rule: Rule, signals: pa.Table) -> tuple[Rule, str, float] | None:
    """Return a rule's single threshold and the signal column that it compares, or None."""
    numbers = [
        getattr(rule, item.name)
        for item in fields(rule)
        if item.init and isinstance(getattr(rule, item.name), (int, float))
    ]
    columns = [
        name for name in rule.columns if name in signals.column_names and is_number(signals[name].type)
    ]
    known = (
        not rule.compared
        and len(numbers) == 1
        and len(columns) == 1
        and signals[columns[0]].null_count < signals.num_rows
    )
    return (rule, columns[0], float(numbers[0])) if known else None


def scatter(vectors: np.ndarray[Any, Any], labels: Sequence[str | None]) -> bytes | None:
    """Draw vectors [n, d] on two principal components, by label, as PNG; None for fewer than three."""
    if len(vectors) < 3:
        return None
    centered = vectors - vectors.mean(axis=0)
    # In ascending order; takes a seventh of the time of a singular value decomposition.
    spread, axes_ = np.linalg.eigh(centered.T @ centered)
    points = centered @ axes_[:, :-3:-1]
    shares = spread[:-3:-1] / max(float(spread.sum()), 1e-12)
    names = np.array([(label or "(no label)")[:_LABEL] for label in labels])
    found, counts = np.unique(names, return_counts=True)
    shown = list(found[np.argsort(-counts)][:_LABELS])
    figure = _figure(4.5)
    figure.set_layout_engine("constrained")  # makes room for the legend
    axes = figure.subplots()
    for label in shown:
        mine = points[names == label]
        axes.scatter(mine[:, 0], mine[:, 1], s=9, label=_escape_label(label))
    if rest := len(found) - len(shown):
        others = points[~np.isin(names, shown)]
        axes.scatter(others[:, 0], others[:, 1], s=9, color=_GRAY, label=f"{rest:,} other labels")
    axes.set_xlabel(f"first component, {shares[0]:.0%} of the variance")
    axes.set_ylabel(f"second, {shares[1]:.0%}")
    axes.legend(fontsize=7, loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    return _png(figure)


def comparisons(shown: Sequence[DistributionDrift]) -> bytes | None:
    """Draw distributions before (gray) and after (blue), red where they drift, as PNG; None without any."""
    if not shown:
        return None
    figure = _figure(2.2 * len(shown))
    for axes, shift in zip(figure.subplots(len(shown), squeeze=False)[:, 0], shown, strict=True):
        if isinstance(shift.before, dict):
            both = {**shift.before, **shift.after}
            names = sorted(both, key=lambda name: -max(shift.before.get(name, 0), shift.after.get(name, 0)))[
                :_LABELS
            ]
            for offset, shares, color in ((-0.2, shift.before, _GRAY), (0.2, shift.after, _BLUE)):
                axes.bar(
                    np.arange(len(names)) + offset,
                    [shares.get(name, 0) for name in names],
                    0.38,
                    color=color,
                )
            axes.set_xticks(range(len(names)), [name[:18] for name in names], fontsize=7)
        else:
            edges = _edges(np.concatenate([shift.before, shift.after]))
            for values, color in ((shift.before, _GRAY), (shift.after, _BLUE)):
                axes.hist(
                    values,
                    bins=edges,
                    color=color,
                    alpha=0.6,
                    weights=np.full(len(values), 1 / len(values)),
                    histtype=_OUTLINE,
                )
            axes.locator_params(nbins=_TICKS)
        _finish(axes, str(shift), "black" if shift.is_within_limit else _RED)
    return _png(figure)


def _finish(axes: Axes, title: str, color: str = "black") -> None:
    """Set the title of a panel, and leave out the lines that nothing stands at."""
    axes.set_title(title, fontsize=9, loc="left", color=color, y=_ABOVE)
    axes.spines[["top", "right"]].set_visible(False)


def _edges(values: Sequence[float] | np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return the edges of bins over all values, which may differ in their last digits only."""
    low, high = float(np.min(values)), float(np.max(values))
    least = 1e-6 * max(abs(low), abs(high), 1.0)
    if high - low < least:
        low, high = low - least, high + least
    return np.linspace(low, high, _BINS + 1)


def _width(names: Iterable[str], size: float) -> float:
    """Return the width in inches that the longest name takes at most, in letters of `size` points."""
    return 0.2 + max(map(len, names)) * size * _LETTER / 72


def _figure(height: float, left: float = 0.7, bottom: float = 0.35) -> Figure:
    """Return a figure with room for a title and for the labels of its axes; lengths in inches.

    Fixed margins take a third of the time of a layout that measures every label.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(_INCHES, height), dpi=80)
    figure.subplots_adjust(
        left=min(left / _INCHES, 0.6), right=0.98, top=1 - 0.3 / height, bottom=bottom / height, hspace=0.4
    )
    return figure


def _png(figure: Figure) -> bytes:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    stream = io.BytesIO()
    FigureCanvasAgg(figure).print_png(stream)  # Figure.savefig draws everything twice.
    return stream.getvalue()
