"""The state of cells, for people and scripts."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import pyarrow as pa

from mm_assets.cells.gates import verdicts
from mm_assets.cells.source_drift_check import known_drifts, sources_of, summary
from mm_embed_kernels.contracts.pipeline import STAGES
from mm_resources.cell import Cell
from mm_resources.ledger.accounting import account
from mm_resources.registry.registry import Registry
from mm_resources.storage.store import Store
from mm_resources.tables.failure_events import FailureEvents
from mm_resources.tables.stage_tables import StageTables

_NOTHING = pa.schema([("sample_id", pa.string())])


def cell_status(store: Store, cell: Cell) -> dict[str, Any]:
    """Counts of a cell as it is published; before the first publish, as its stages stand.

    Samples that a closed gate holds back count as dropped; those of a cell whose first run has not ended, or died
    half-way, count as undecided.
    """
    tables, pin = StageTables(store), Registry(store).pin(cell)
    metas = {name: meta for name in STAGES if (meta := tables.meta(name, cell))}
    blocked = next((f"{name}: {meta.blocked}" for name, meta in metas.items() if meta.blocked), "")
    if pin is not None:
        counts = pin.accounting
    else:
        empty = pa.RecordBatchReader.from_batches(_NOTHING, [])
        counts = account(tables, FailureEvents(store), cell, empty, 0).as_dict()
        waiting = counts["discovered"] - counts["failed"] - counts["dropped"]
        counts["dropped" if blocked else "undecided"] += waiting
    return {
        "modality": cell.modality,
        **counts,
        "data_version": pin.data_version if pin else None,
        "published_at": pin.published_at if pin else None,
        "gates": [{"stage": name, **verdict} for name, meta in metas.items() for verdict in verdicts(meta)],
        **({"blocked": blocked} if blocked else {}),
    }


def dataset_status(
    store: Store, dataset_version: str, modality: str | None = None, look: bool = False
) -> dict[str, Any]:
    """The state of a version's cells, and how its sources differ from what was frozen of them.

    Args:
        look: list the sources now, which takes as long as listing them does; else what the last look found.
    """
    registry = Registry(store)
    cells = registry.cells(dataset_version, modality)
    spec = registry.spec(cells[0].dataset, cells[0].version)
    chosen = [
        source for source in spec.sources if any(source in sources_of(spec, cell.modality) for cell in cells)
    ]
    drifts = known_drifts(registry, spec, chosen, look)
    return {
        "dataset_version": dataset_version,
        "cells": [cell_status(store, cell) for cell in cells],
        "drift": [asdict(drift) for drift in drifts if drift.looked_at],
        "drift_summary": summary(registry, spec, drifts),
    }
