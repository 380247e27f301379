"""Monitoring and lineage: accounting, cost, failures by cause and drift of a cell."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

from mm_assets.cells.accounting_check import account_candidate, accounting_check
from mm_assets.cells.cell_asset import cell_asset
from mm_assets.cells.cell_run import CellRun
from mm_assets.cells.checks import Check
from mm_assets.cells.plots import comparisons, costs, funnel
from mm_assets.cells.stage_output import StageOutput
from mm_embed_kernels import sql
from mm_embed_kernels.contracts import LINEAGE_REPORT
from mm_embed_kernels.contracts.pipeline import STAGES
from mm_resources.costs.cell_costs import CellCost, cell_cost
from mm_resources.costs.figures import format_amount
from mm_resources.costs.prices import Prices, load_prices
from mm_resources.ledger.accounting import Accounting
from mm_resources.metering import Usage
from mm_resources.monitoring.distribution_drift import DistributionDrift, distribution_drifts, largest_drifts
from mm_resources.monitoring.semantic_duplicates import find_semantic_duplicates
from mm_resources.registry.pins import Pin
from mm_resources.settings import Settings
from mm_resources.storage.records import DamagedRecord

_SINCE = """
SELECT count(*) FILTER (p.sample_id IS NULL) AS new, count(*) FILTER (n.sample_id IS NULL) AS gone,
       count(*) FILTER (p.content_hash <> n.content_hash) AS changed
FROM now n FULL JOIN parent p ON n.sample_id = p.sample_id
"""


def _compared_pins(run: CellRun) -> dict[str, Pin]:
    """Return the pins that the cell is compared with, by name: of the parent version and of production."""
    found: dict[str, Pin | None] = {}
    if parent := run.parent_cell:
        found[parent.dataset_version] = run.catalog.registry.pins.get(parent)
    try:
        served = run.catalog.registry.aliases.target(run.cell.dataset, "production")
    except DamagedRecord as error:
        # The report compares with one version less; the cell itself is sound.
        run.context.log.warning(str(error))
        served = None
    if served is not None and run.cell.modality in served.pins:
        cell = dataclasses.replace(run.cell, version=served.version)
        found[f"{run.cell.dataset}@production"] = run.catalog.registry.pins.get(
            cell, served.pins[run.cell.modality]
        )
    now = run.catalog.registry.pins.get(run.cell)
    return {
        name: pin
        for name, pin in found.items()
        if pin is not None and now is not None and pin.tables != now.tables
    }


def _shifts(run: CellRun) -> list[DistributionDrift]:
    now = run.catalog.registry.pins.get(run.cell)
    if now is None:
        return []
    return [
        drift
        for name, pin in _compared_pins(run).items()
        for drift in distribution_drifts(run.catalog, pin, now, run.spec.drift, name)
    ]


def _drift_check(found: list[DistributionDrift]) -> Check:
    """Check that no shift exceeds its limit; not blocking, since a new version may differ on purpose."""
    moved = [str(shift) for shift in found if not shift.is_within_limit]
    line = "; ".join(moved) or ("no drift" if found else "there is no version to compare with")
    return Check(
        "drift", not moved, line, {f"{s.kind} {s.what} {s.against}": s.value for s in found}, blocking=False
    )


@cell_asset(
    group="4_serve",
    deps=["raw_assets", "feature_views"],
    kinds=["lance"],
    code_version="2",
    checks=[("accounting", True), ("drift", False)],
    extra_inputs=lambda run: {
        "references": {name: pin.data_version for name, pin in _compared_pins(run).items()}
    },
)
def lineage_report(run: CellRun) -> StageOutput:
    """Samples in, out, dropped and failed, stage by stage, with costs, failures by cause, and drift."""
    views = run.read("feature_views").read_all().to_pylist()
    counted, found = account_candidate(run, views), _shifts(run)
    prices = load_prices(Settings.from_environment().prices)
    cost = cell_cost(run.catalog, run.cell, prices, counted.published)
    return StageOutput(
        run.write([LINEAGE_REPORT.rows(_report_rows(run, counted, prices))]),
        {
            **{name: value for name, value in counted.as_dict().items() if name != "failures"},
            **{f"failed: {name}": n for name, n in counted.failures.items()},
            **_cost_figures(cost, prices.currency),
            **_semantic_duplicates(run, views),
            **_since_parent(run),
            **{
                f"drift against {name}": _drift_line(found, name) for name in {s.against: None for s in found}
            },
        },
        checks=[accounting_check(counted), _drift_check(found)],
        plots=_plots(counted, cost, found, prices.currency),
        figures={
            "cost": cost.price,
            "cost_per_1000_published": cost.per_1000_published or 0.0,
            "stored_bytes": cost.stored_bytes,
            "failed_share": counted.failed / counted.discovered if counted.discovered else 0.0,
        },
    )


def _plots(
    counted: Accounting, cost: CellCost, found: list[DistributionDrift], currency: str
) -> dict[str, Callable[[], bytes | None]]:
    stages = ("discovered", "ingested", "valid", "kept", "published")
    return {
        "funnel": partial(funnel, {name: getattr(counted, name) for name in stages}),
        "cost": partial(
            costs,
            {row["stage"]: row["price"] for row in cost.stages},
            {cause: part.price for cause, part in cost.savings.items()},
            currency,
        ),
        "drift": partial(comparisons, largest_drifts(found)),
    }


def _cost_figures(cost: CellCost, currency: str) -> dict[str, Any]:
    """Return the costs over all runs of the cell, as `mm cost` reports them."""
    each = (
        {}
        if cost.per_1000_published is None
        else {f"{currency} for 1,000 published": format_amount(cost.per_1000_published)}
    )
    saved = {
        f"{currency} spared by {cause}": f"{format_amount(part.price)} ({part.count:,})"
        for cause, part in cost.savings.items()
    }
    return {
        f"{currency} in all": format_amount(cost.price),
        **each,
        f"{currency} a month, stored": format_amount(cost.stored_month),
        **saved,
    }


def _semantic_duplicates(run: CellRun, views: list[dict[str, Any]]) -> dict[str, Any]:
    """Count semantic duplicates that belong to no group."""
    primary = next(view for view in views if view["primary"])
    found = find_semantic_duplicates(
        run.catalog, primary["table"], primary["lance_version"], primary["index"]
    )
    return {
        "near-duplicates by vector, in no group": (
            f"{found.samples:,} samples, among {found.checked:,} checked vectors"
        )
    }


def _drift_line(found: list[DistributionDrift], against: str) -> str:
    """Return the largest shift of each kind and its limit, in one line."""
    return ", ".join(
        f"{shift.kind} {shift.value:.3f} of {shift.limit:.3f}"
        for shift in largest_drifts(found)
        if shift.against == against
    )


def _since_parent(run: CellRun) -> dict[str, Any]:
    """Return the differences from the parent version's samples, and the parent's published counts."""
    cell = run.parent_cell
    if cell is None:
        return {}
    pin, columns = run.catalog.registry.pins.get(cell), ["sample_id", "content_hash"]
    if pin is None:
        return {f"against {cell.dataset_version}": "not published"}
    parent = run.catalog.tables.read("raw_assets", cell, columns, at=pin.place("raw_assets"))
    found = sql.fetch(_SINCE, now=run.read("raw_assets", columns), parent=parent).to_pylist()[0]
    published = ", ".join(f"{pin.accounting[name]:,} {name}" for name in ("published", "dropped", "failed"))
    return {
        f"against {cell.dataset_version}": ", ".join(f"{n:,} {name}" for name, n in found.items()),
        cell.dataset_version: published,
    }


def _report_rows(run: CellRun, counted: Accounting, prices: Prices) -> list[dict[str, Any]]:
    """Return a row for each stage: samples in, out, failed and dropped, and the cost of its last run."""
    ledger = run.catalog.ledger.latest_work(run.cell)
    out = {
        "dataset_registry": counted.discovered,
        "raw_assets": counted.ingested,
        "content_blobs": counted.ingested,
        "validated_samples": counted.valid,
        "curated_samples": counted.kept,
        "feature_views": counted.published,
    }
    rows, entering = [], counted.discovered
    for stage in STAGES[:-1]:
        meta = run.snapshot.meta(stage)
        leaving = out.get(stage, entering)
        if stage == "sample_metadata" and meta:
            leaving = entering - meta.failed
        work = ledger.get(stage)
        usage = work.usage if work else Usage()
        rows.append(
            {
                "stage": stage,
                "samples_in": entering,
                "samples_out": leaving,
                "failed": meta.failed if meta else 0,
                "dropped": counted.dropped if stage == "curated_samples" else 0,
                "computed": work.computed if work else 0,
                "reused": work.reused if work else 0,
                "seconds": work.seconds if work else 0.0,
                **{
                    name: getattr(usage, name)
                    for name in ("cpu_seconds", "gpu_seconds", "bytes_read", "bytes_written")
                },
                "peak_bytes": work.peak_bytes if work else None,
                "price": prices.of(usage),
                "data_version": meta.data_version if meta else None,
            }
        )
        entering = leaving
    return rows
