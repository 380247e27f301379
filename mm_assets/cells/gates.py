"""Gates: compare the share of failed samples with the spec's thresholds; above one, nothing is published."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from mm_assets.cells.cell_run import CellRun
from mm_assets.cells.checks import Check, closed_gates
from mm_embed_kernels.spec.thresholds import Gates
from mm_resources.cell import Cell
from mm_resources.tables.stage_refs import StageMeta

# The gates of the spec: for the cell, for single causes, and against the parent version.
GATES = ("failed_share", "failed_share_by_class", "failed_share_above_parent")
CELL, BY_CLASS, ABOVE_PARENT = GATES
GATE_CHECKS = [(name, True) for name in GATES]
# Checks that `--override-gate` may waive. Accounting, recall and completeness cannot be waived.
OVERRIDABLE = frozenset({*GATES, "sources_listed"})


def gate_inputs(run: CellRun) -> dict[str, Any]:
    """Return the inputs besides the samples that decide whether the gates of a stage close."""
    watched = run.spec.gates.max_failed_share_above_parent is not None
    return {"gates": run.spec.gates.model_dump(), **({"parent_share": parent_share(run)} if watched else {})}


def evaluate_gates(run: CellRun, discovered: int, failed: int, by_class: Mapping[str, int]) -> list[Check]:
    """Evaluate the gates of a stage over all failures up to it.

    Args:
        discovered, failed: samples of the cell.
        by_class: error class -> samples.
    """
    return gate_checks(run.spec.gates, discovered, failed, by_class, run.spec.parent, parent_share(run))


def gate_checks(
    limits: Gates,
    discovered: int,
    failed: int,
    by_class: Mapping[str, int],
    parent: str | None,
    before: float | None,
) -> list[Check]:
    """Evaluate the gates over given numbers.

    Args:
        before: failed share of the parent version; None when it is not published.
    """
    share = failed / discovered if discovered else 0.0
    counts = f"{failed:,} of {discovered:,} samples failed: {share:.1%}"
    figures = {
        "failed": failed,
        "discovered": discovered,
        "share": share,
        "threshold": limits.max_failed_share,
    }
    cell = Check(
        CELL,
        share <= limits.max_failed_share,
        f"{counts}, {_limit_text(share, limits.max_failed_share, 'max_failed_share')}",
        figures,
    )
    return [
        cell,
        _class_gate(limits.max_failed_share_by_class, discovered, by_class),
        _parent_gate(limits, counts, share, parent, before),
    ]


def _class_gate(limits: Mapping[str, float], discovered: int, by_class: Mapping[str, int]) -> Check:
    shares = {name: by_class.get(name, 0) / discovered if discovered else 0.0 for name in limits}
    above = [name for name in limits if shares[name] > limits[name]]
    lines = [
        f"{by_class.get(name, 0):,} of {discovered:,} samples failed as {name}: {shares[name]:.1%}, "
        + _limit_text(shares[name], limits[name], f"max_failed_share_by_class.{name}")
        for name in above or limits
    ]
    figures = {**shares, **{f"{name} threshold": limit for name, limit in limits.items()}}
    return Check(BY_CLASS, not above, "; ".join(lines) or "the spec sets no threshold for a cause", figures)


def _parent_gate(limits: Gates, counts: str, share: float, parent: str | None, before: float | None) -> Check:
    limit = limits.max_failed_share_above_parent
    if limit is None:
        return Check(ABOVE_PARENT, True, "the spec sets no threshold against a parent version")
    if before is None:
        return Check(
            ABOVE_PARENT,
            True,
            f"{parent or 'no parent version'} is not published: there is nothing to compare with",
        )
    rise = share - before
    threshold = _limit_text(rise, limit, "max_failed_share_above_parent")
    line = f"{counts}, {rise * 100:+.1f} points against {parent}, {threshold}"
    # Two shares of the same samples may differ in the last bit.
    return Check(
        ABOVE_PARENT,
        rise <= limit + 1e-12,
        line,
        {"share": share, "parent": before, "rise": rise, "threshold": limit},
    )


def _limit_text(share: float, limit: float, name: str) -> str:
    above = f", {(share - limit) * 100:.1f} points too many" if share > limit else ""
    return f"allowed are {limit:.1%}{above} (gates.{name})"


def parent_share(run: CellRun) -> float | None:
    """Return the failed share of the published parent version at the same stage, or None."""
    cell = run.parent_cell
    if cell is None:
        return None
    meta = run.catalog.tables.meta(run.asset, cell) if run.catalog.registry.pins.get(cell) else None
    return next((float(check["figures"]["share"]) for check in verdicts(meta) if check["name"] == CELL), None)


def verdicts(meta: StageMeta | None) -> list[dict[str, Any]]:
    """Return the stored verdicts of a stage's gates: name, passed, waived, description, figures."""
    return [check for check in meta.checks if check["name"] in GATES] if meta else []


def override_command(cell: Cell, checks: Iterable[Check]) -> str:
    """Return the command that publishes despite closed gates; "" where one of them cannot be waived."""
    failing = closed_gates(checks)
    if not failing or any(check.name not in OVERRIDABLE for check in failing):
        return ""
    return f"mm backfill {cell.dataset_version} --modality {cell.modality} --override-gate REASON"
