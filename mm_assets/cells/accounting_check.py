"""Accounting of a candidate, and the checks of it."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from mm_assets.cells.cell_run import CellRun
from mm_assets.cells.checks import Check
from mm_assets.cells.gates import evaluate_gates
from mm_resources.ledger.accounting import Accounting, account
from mm_resources.storage import lance_datasets


def account_candidate(run: CellRun, entries: list[dict[str, Any]]) -> Accounting:
    """Return the accounting of the cell as it is after the publish of the candidate."""
    primary = next(entry for entry in entries if entry["primary"])
    dataset = run.catalog.features.dataset(primary["table"], primary["lance_version"])
    published = lance_datasets.reader(dataset, pa.schema([("sample_id", pa.string())]), ["sample_id"])
    return account(
        run.catalog.tables, run.catalog.failures, run.cell, published, sum(entry["rows"] for entry in entries)
    )


def accounting_checks(run: CellRun, counted: Accounting) -> list[Check]:
    """Return the check of the accounting, and the gates over all failures."""
    gates = evaluate_gates(run, counted.discovered, counted.failed, counted.failures)
    return [accounting_check(counted), *gates]


def accounting_check(counted: Accounting) -> Check:
    """Check that discovered = published + dropped + failed."""
    figures = {name: getattr(counted, name) for name in ("discovered", "published", "dropped", "failed")}
    equation = (
        f"{counted.discovered:,} discovered = {counted.published:,} published"
        f" + {counted.dropped:,} dropped + {counted.failed:,} failed"
    )
    description = equation if counted.is_balanced else f"does not hold: {equation}"
    return Check("accounting", counted.is_balanced, description, figures)
