"""Outcomes of asset checks, and those that block the publish."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any


class GateClosed(Exception):
    """The gate of an upstream stage is closed.

    Attributes:
        stage: the stage that closed it.
        reason: the stored verdict.
    """

    def __init__(self, stage: str, reason: str) -> None:
        super().__init__(f"the gate of {stage} is closed: {reason}")
        self.stage, self.reason = stage, reason


@dataclass(frozen=True)
class Check:
    """The outcome of one check, with its figures; a waived one failed and was overridden."""

    name: str
    passed: bool
    description: str
    figures: dict[str, Any] = field(default_factory=dict)
    blocking: bool = True
    waived: bool = False


def closed_gates(checks: Iterable[Check]) -> list[Check]:
    """Select the checks that block the publish: failed, blocking and not waived."""
    return [check for check in checks if check.blocking and not check.passed and not check.waived]


def completeness_check(name: str, expected: int, found: int, what: str) -> Check:
    """Return a blocking check that all expected items are present: ``FOUND of EXPECTED WHAT``."""
    return Check(
        name, expected == found, f"{found:,} of {expected:,} {what}", {"expected": expected, "found": found}
    )
