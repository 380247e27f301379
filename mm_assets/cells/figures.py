"""Figures of a stage as scalar metadata, which Dagster's UI plots over versions and exporters read."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mm_assets.cells.checks import Check
from mm_resources.tables.stage_refs import StageMeta

PREFIX = "mm/"


@dataclass(frozen=True)
class Effort:
    """The work of a run in a stage.

    Attributes:
        work: kernel -> (rows computed, rows reused).
        unchanged: whether the stage was skipped because nothing changed.
        seconds: wall time of the stage in this run.
    """

    work: Mapping[str, tuple[int, int]]
    unchanged: bool
    seconds: float


def scalar_figures(meta: StageMeta, checks: Sequence[Check], effort: Effort) -> dict[str, int | float]:
    """Return the numbers of a stage by their stable names.

    Every stage has ``mm/rows``, ``mm/failed``, ``mm/failed_share`` (of the samples that failed or left it),
    ``mm/rows_computed``, ``mm/rows_reused`` and ``mm/seconds`` (wall time of this run). The rest are numbers
    of its summary (``mm/published``, ``mm/kept``, ``mm/bytes``), of its checks (``mm/recall``) and those that
    the asset names (`StageOutput.figures`: ``mm/cost``), which count where both have a name: ``mm/failed`` of
    ``lineage_report`` is that of all stages.
    """
    left = meta.rows if meta.samples is None else meta.samples
    found: dict[str, int | float] = {
        PREFIX + "rows": meta.row_count,
        PREFIX + "failed": meta.failed,
        PREFIX + "failed_share": meta.failed / (meta.failed + left) if meta.failed else 0.0,
        PREFIX + "rows_computed": sum(computed for computed, _ in effort.work.values()),
        PREFIX + "rows_reused": sum(reused for _, reused in effort.work.values()),
        PREFIX + "seconds": round(effort.seconds, 3),
    }
    for check in checks:
        found |= _numbers(check.figures)
    return found | _numbers(meta.summary) | _numbers(meta.figures)


def _numbers(figures: Mapping[str, Any]) -> dict[str, int | float]:
    # A name that tells a version (of drift against `birds@v1`) is another one for each version.
    return {
        figure_name(name): value
        for name, value in figures.items()
        if isinstance(value, int | float) and not isinstance(value, bool) and "@" not in name
    }


def figure_name(name: str) -> str:
    """Return the key of a figure in metadata: ``dropped by too_short`` is ``mm/dropped_by_too_short``."""
    return PREFIX + re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")
