"""The value that an asset body returns."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mm_assets.cells.checks import Check
from mm_resources.tables.stage_writer import WrittenRows


@dataclass(frozen=True)
class StageOutput:
    """The result of an asset body, which `publication.publish` commits.

    Attributes:
        rows: the stage's rows, written but not committed, see `CellRun.write`.
        summary: figures for the asset page.
        checks: outcomes of the stage's checks; a blocking one that fails closes the gate.
        before_commit: action between the checks and the commit (the pin).
        row_count: rows of the asset, where they are not those of its table.
        plots: a function that draws a PNG, by name; it returns None where nothing can be drawn.
        figures: numbers by their stable names, besides those of `summary` and `checks`.
    """

    rows: WrittenRows
    summary: Mapping[str, Any]
    checks: Sequence[Check] = ()
    before_commit: Callable[[], None] | None = None
    row_count: int | None = None
    plots: Mapping[str, Callable[[], bytes | None]] = field(default_factory=dict)
    figures: Mapping[str, float] = field(default_factory=dict)
