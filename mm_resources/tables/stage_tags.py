"""Tags that keep the versions of stage tables and failures that a pin names."""

from __future__ import annotations

from collections.abc import Mapping

from mm_resources.cell import Cell
from mm_resources.tables.failure_events import FailureEvents
from mm_resources.tables.stage_tables import StageTables


def tag_pinned_stages(
    tables: StageTables, failures: FailureEvents, cell: Cell, pin: int, versions: Mapping[str, int]
) -> None:
    """Tag the tables of a pin's lineage: the stages at `versions`, and the failures that these name."""
    for asset, version in versions.items():
        tables.tag(asset, cell, version, f"pin-{pin}")
        meta = tables.meta(asset, cell, version)
        if meta is not None and meta.failures:
            failures.tag(asset, cell, meta.failures, f"pin-{pin}")
