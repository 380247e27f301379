"""Tags of the runs of a cell."""

from __future__ import annotations

from mm_resources.cell import Cell
from mm_resources.settings import Settings

# The reason for which a run passes closed gates, and the failures that it computes again.
OVERRIDE_TAG = "mm/override_gate"
REDRIVE_TAG = "mm/redrive"


def cell_tags(cell: Cell) -> dict[str, str]:
    """Tags by which a person finds the runs of a cell."""
    profile = Settings.from_environment().profile
    return {
        "mm/dataset": cell.dataset,
        "mm/version": cell.version,
        "mm/modality": cell.modality,
        "mm/profile": profile,
    }
