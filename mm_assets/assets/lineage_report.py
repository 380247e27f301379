from __future__ import annotations

import dataclasses
from typing import Any

import dagster as dg

from mm_assets.assets.feature_views import account_candidate, accounting_checks
from mm_assets.cell_asset import cell_asset
from mm_assets.cell_run import ORDER, CellRun
from mm_assets.checks import Check
from mm_assets.plots import comparisons, funnel
from mm_embed_kernels import relational
from mm_embed_kernels.contracts import LINEAGE_REPORT
from mm_resources.accounting import Accounting
from mm_resources.registry import Pin
from mm_resources.shifts import Shift, shifts, worst


def _references(run: CellRun) -> dict[str, Pin]:
    """What the cell is held against, by name: the parent version's pin, and the one that production stands for."""
    found: dict[str, Pin | None] = {}
    if run.spec.parent is not None:
        parent = dataclasses.replace(run.cell, version=run.spec.parent)
        found[parent.dataset_version] = run.registry.pin(parent)
    served = run.registry.aliases.current(run.cell.dataset, "production")
    if served is not None and run.cell.modality in served.pins:
        cell = dataclasses.replace(run.cell, version=served.version)
        found[f"{run.cell.dataset}@production"] = run.registry.pin(cell, served.pins[run.cell.modality])
    now = run.registry.pin(run.cell)
    return {name: pin for name, pin in found.items() if pin is not None and now is not None and pin.tables != now.tables}


def _shifts(run: CellRun) -> list[Shift]:
    now = run.registry.pin(run.cell)
    if now is None:
        return []
    found = (shifts(run.features, pin, now, run.spec.drift, name) for name, pin in _references(run).items())
    return [shift for each in found for shift in each]


def _drift(found: list[Shift]) -> Check:
    """Names what has moved; holds nothing back, since what is published may differ for good reason."""
    moved = [str(shift) for shift in found if not shift.passed]
    told = "; ".join(moved) or ("no drift" if found else "there is nothing to hold it against")
    return Check("drift", not moved, told, {f"{s.kind} {s.what} {s.against}": s.value for s in found}, blocking=False)


@cell_asset(
    group="4_serve",
    deps=["raw_assets", "feature_views"],
    kinds=["lance"],
    code_version="2",
    checks=[("accounting", True), ("drift", False)],
    depends=lambda run: {"references": {name: pin.data_version for name, pin in _references(run).items()}},
)
def lineage_report(run: CellRun) -> dg.MaterializeResult[Any]:
    """What became of every sample, stage by stage, what it cost, and what failed for which cause."""
    counted = account_candidate(run, run.read("feature_views").read_all().to_pylist())
    rows, found = report_rows(run, counted), _shifts(run)
    return run.publish(
        [LINEAGE_REPORT.rows(rows)],
        summary=lambda: {
            **{name: value for name, value in counted.as_dict().items() if name != "failures"},
            **{f"failed: {name}": n for name, n in counted.failures.items()},
            **since_parent(run),
            **{f"drift against {name}": _told(found, name) for name in dict.fromkeys(shift.against for shift in found)},
        },
        plots=lambda: {
            "funnel": funnel({name: getattr(counted, name) for name in ("discovered", "ingested", "valid", "kept", "published")}),
            "drift": comparisons(worst(found)),
        },
        checks=lambda: [*(check for check in accounting_checks(run, counted) if check.name == "accounting"), _drift(found)],
    )


def _told(found: list[Shift], against: str) -> str:
    """The largest shift of each kind against its limit, in one line."""
    return ", ".join(f"{shift.kind} {shift.value:.3f} of {shift.limit:.3f}" for shift in worst(found) if shift.against == against)


_SINCE = """
SELECT count(*) FILTER (p.sample_id IS NULL) AS new, count(*) FILTER (n.sample_id IS NULL) AS gone,
       count(*) FILTER (p.content_hash <> n.content_hash) AS changed
FROM now n FULL JOIN parent p ON n.sample_id = p.sample_id
"""


def since_parent(run: CellRun) -> dict[str, Any]:
    """How the cell's samples differ from the parent version's, and the counts that were published of it."""
    if run.spec.parent is None:
        return {}
    cell = dataclasses.replace(run.cell, version=run.spec.parent)
    pin, columns = run.registry.pin(cell), ["sample_id", "content_hash"]
    if pin is None:
        return {f"against {cell.dataset_version}": "not published"}
    parent = run.tables.read("raw_assets", cell, columns, version=pin.stages["raw_assets"]["lance_version"])
    found = relational.fetch(_SINCE, now=run.read("raw_assets", columns), parent=parent).to_pylist()[0]
    published = ", ".join(f"{pin.accounting[name]:,} {name}" for name in ("published", "dropped", "failed"))
    return {f"against {cell.dataset_version}": ", ".join(f"{n:,} {name}" for name, n in found.items()), cell.dataset_version: published}


def report_rows(run: CellRun, counted: Accounting) -> list[dict[str, Any]]:
    """One row per stage: samples in and out, failed, dropped, computed, reused, seconds."""
    ledger = {row["stage"]: row for row in run.ledger.of_cell(run.cell)}
    out = {
        "dataset_registry": counted.discovered, "raw_assets": counted.ingested, "content_blobs": counted.ingested,
        "validated_samples": counted.valid, "curated_samples": counted.kept, "feature_views": counted.published,
    }  # fmt: skip
    rows, entering = [], counted.discovered
    for stage in ORDER[:-1]:
        meta = run.tables.meta(stage, run.cell)
        leaving = out.get(stage, entering)
        if stage == "sample_metadata" and meta:
            leaving = entering - meta.failed
        work = ledger.get(stage, {})
        rows.append(
            {
                "stage": stage,
                "samples_in": entering,
                "samples_out": leaving,
                "failed": meta.failed if meta else 0,
                "dropped": counted.dropped if stage == "curated_samples" else 0,
                "computed": work.get("computed", 0),
                "reused": work.get("reused", 0),
                "seconds": work.get("seconds", 0.0),
                "data_version": meta.data_version if meta else None,
            }
        )
        entering = leaving
    return rows
