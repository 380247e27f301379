"""Tags of the runs of a cell, and of the twelve assets."""

from __future__ import annotations

from mm_resources.cell import Cell
from mm_resources.settings import Settings

# Reason for which a run overrides closed gates; failures that it computes again.
OVERRIDE_TAG = "mm/override_gate"
REDRIVE_TAG = "mm/redrive"
# Tag of each of the twelve assets, and its value.
STAGE_TAG = ("mm/part", "stage")


def cell_tags(cell: Cell) -> dict[str, str]:
    """Return the tags by which the UI finds the runs of a cell."""
    profile = Settings.from_environment().profile
    return {
        "mm/dataset": cell.dataset,
        "mm/version": cell.version,
        "mm/modality": cell.modality,
        "mm/profile": profile,
    }
