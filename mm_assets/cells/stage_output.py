"""The value that an asset body returns, and the value that admits a run to a stage."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mm_assets.cells.checks import Check
from mm_resources.tables.stage_tables import StageMeta, WrittenRows


@dataclass(frozen=True)
class StageOutput:
    """The result of an asset body, which `publication.publish` commits.

    Attributes:
        rows: the stage's rows, written and not committed, see `CellRun.write`.
        summary: figures for people.
        checks: outcomes of the stage's checks; a blocking one that failed closes the gate.
        effect: what must happen after the stage is sound and before it is committed (the pin).
        row_count: rows that the asset stands for, where they are not its table's.
        plots: pictures of the stage (PNG) by name.
    """

    rows: WrittenRows
    summary: Mapping[str, Any]
    checks: Sequence[Check] = ()
    effect: Callable[[], None] | None = None
    row_count: int | None = None
    plots: Mapping[str, bytes | None] = field(default_factory=dict)


@dataclass(frozen=True)
class Entry:
    """The comparison that a run made when it entered a stage.

    Attributes:
        inputs: digest of all inputs; equal inputs need no new work.
        code: code version and whatever besides upstream data decides the result.
        samples_in: samples that reach the stage; None where the stage before it did not count them.
        stored: the stage's last result where it still holds, so that nothing is computed; else None.
    """

    inputs: str
    code: Mapping[str, Any]
    samples_in: int | None
    stored: StageMeta | None
