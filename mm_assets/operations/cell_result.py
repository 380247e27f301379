"""The result of a backfill of one cell."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class CellResult:
    """The result of a backfill of one cell.

    Attributes:
        status: ``published``, ``unchanged``, ``blocked`` (a gate is closed), ``busy`` (another run processes
            the cell) or ``failed``.
        computed, reused: rows by kernel.
        reason: one line, for a blocked, busy or failed cell.
        notes: descriptions of failed checks that do not block.
    """

    modality: str
    status: str
    run_id: str
    computed: dict[str, int]
    reused: dict[str, int]
    seconds: float
    reason: str = ""
    notes: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """Return the fields for ``--json``, without an empty reason and empty notes."""
        return {name: value for name, value in vars(self).items() if name not in ("reason", "notes") or value}
