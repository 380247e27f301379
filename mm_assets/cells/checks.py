"""Outcomes of asset checks, and the gates that they close."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from mm_resources.cell import Cell

# The gates of the spec: for the cell, for single causes, and against the parent version.
GATES = ("failed_share", "failed_share_by_class", "failed_share_above_parent")
# What a person may decide to publish in spite of. Accounting, recall and completeness are no matter of
# opinion.
OVERRIDABLE = frozenset({*GATES, "sources_listed"})


@dataclass(frozen=True)
class Check:
    """The outcome of one check, with the numbers behind it. A waived one failed, and was overridden."""

    name: str
    passed: bool
    description: str
    figures: dict[str, Any] = field(default_factory=dict)
    blocking: bool = True
    waived: bool = False


def closed(checks: Iterable[Check]) -> list[Check]:
    """The checks that close a gate: they failed, they block, and nobody has overridden them."""
    return [check for check in checks if check.blocking and not check.passed and not check.waived]


def override_command(cell: Cell, checks: Iterable[Check]) -> str:
    """The command that publishes in spite of the checks that close a gate; "" where no reason would do."""
    shut = closed(checks)
    if not shut or any(check.name not in OVERRIDABLE for check in shut):
        return ""
    return f"mm backfill {cell.dataset_version} --modality {cell.modality} --override-gate REASON"


def complete(name: str, expected: int, found: int, what: str) -> Check:
    """A blocking check that nothing got lost on the way: ``found of expected what``."""
    return Check(
        name, expected == found, f"{found:,} of {expected:,} {what}", {"expected": expected, "found": found}
    )
