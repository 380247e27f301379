"""What an asset's check found."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

# What a person may decide to publish in spite of. Accounting, recall and completeness are no matter of opinion.
OVERRIDABLE = frozenset({"failed_share", "sources_listed"})


@dataclass(frozen=True)
class Check:
    """The outcome of one check, with the numbers behind it. A waived one failed, and was overridden."""

    name: str
    passed: bool
    description: str
    figures: dict[str, Any] = field(default_factory=dict)
    blocking: bool = True
    waived: bool = False


def complete(name: str, expected: int, found: int, what: str) -> Check:
    """A blocking check that nothing got lost on the way: ``found of expected what``."""
    return Check(name, expected == found, f"{found:,} of {expected:,} {what}", {"expected": expected, "found": found})
