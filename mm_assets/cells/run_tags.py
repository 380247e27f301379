"""TODO."""

from __future__ import annotations

from mm_resources.cell import Cell
from mm_resources.settings import Settings


def cell_tags(cell: Cell) -> dict[str, str]:
    """Tags by which a person finds the runs of a cell."""
    profile = Settings.from_environment().profile
    return {
        "mm/dataset": cell.dataset,
        "mm/version": cell.version,
        "mm/modality": cell.modality,
        "mm/profile": profile,
    }


OVERRIDE_TAG = "mm/override_gate"


REDRIVE_TAG = "mm/redrive"
