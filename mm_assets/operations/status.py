"""Status of cells: sample counts, gates and source drift."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import pyarrow as pa

from mm_assets.cells.gates import verdicts
from mm_assets.cells.source_drift_check import drift_summary, source_drifts
from mm_resources.catalog import Catalog
from mm_resources.cell import Cell
from mm_resources.ledger.accounting import account

_NO_SAMPLES = pa.schema([("sample_id", pa.string())])


def cell_status(catalog: Catalog, cell: Cell) -> dict[str, Any]:
    """Return the counts of a cell as published; before its first publish, by its stage tables.

    Samples behind a closed gate, and those of a cell whose first run is still running or died, are undecided:
    nothing has dropped them. ``overrides`` are the checks that failed and were overridden.
    """
    snapshot = catalog.snapshot(cell)
    pin, blocked = snapshot.pin, snapshot.closed_gate
    if pin is not None:
        counts = pin.accounting
    else:
        empty = pa.RecordBatchReader.from_batches(_NO_SAMPLES, [])
        counts = account(catalog.tables, catalog.failures, cell, empty, 0).as_dict()
        waiting = counts["discovered"] - counts["failed"] - counts["dropped"]
        counts["undecided"] += waiting
    return {
        "modality": cell.modality,
        **counts,
        "data_version": pin.data_version if pin else None,
        "published_at": pin.published_at if pin else None,
        "gates": [
            {"stage": name, **verdict} for name, meta in snapshot.metas.items() for verdict in verdicts(meta)
        ],
        "overrides": [
            {"stage": name, "name": check["name"], "description": check["description"]}
            for name, meta in snapshot.metas.items()
            for check in meta.checks
            if check["waived"]
        ],
        **({"blocked": blocked} if blocked else {}),
        **({"override": pin.override} if pin and pin.override else {}),
    }


def dataset_status(
    catalog: Catalog,
    dataset_version: str,
    modality: str | Sequence[str] | None = None,
    check: bool = False,
) -> dict[str, Any]:
    """Return the status of a version's cells, and the difference of its sources from their frozen listings.

    Args:
        check: list the sources now, which takes as long as their first listing did; by default the last
            recorded check is returned.
    """
    registry = catalog.registry
    cells = registry.cells(dataset_version, modality)
    spec = registry.spec(cells[0].dataset, cells[0].version)
    chosen = [
        source for source in spec.sources if any(source in spec.sources_of(cell.modality) for cell in cells)
    ]
    drifts = source_drifts(registry, spec, chosen, check)
    return {
        "dataset_version": dataset_version,
        "cells": [cell_status(catalog, cell) for cell in cells],
        "drift": [asdict(drift) for drift in drifts if drift.looked_at],
        "drift_summary": drift_summary(registry, spec, drifts),
    }
