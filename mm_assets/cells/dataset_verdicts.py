"""The stored verdicts of what readers get of a dataset: checks of the cell, and of a promotion."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

from mm_assets.cells.check_descriptions import DESCRIPTIONS
from mm_assets.cells.checks import Check
from mm_assets.cells.source_drift_check import source_drifts, sources_unchanged
from mm_embed_kernels.contracts.pipeline import STAGES
from mm_resources.catalog import Catalog
from mm_resources.registry.pins import Pin
from mm_resources.registry.registrations import Registration

PROMOTION_GATE = "promotion_gate"
_FIELDS = {item.name for item in fields(Check)}


def newest_pin(catalog: Catalog, dataset: str, modality: str) -> Pin | None:
    """Return the pin that readers of a dataset get of a modality: that of its newest published version."""
    versions = [
        found
        for _, found in catalog.registry.registrations.read_all(dataset)
        if isinstance(found, Registration)
    ]
    for found in sorted(versions, key=lambda each: each.at, reverse=True):
        cells = catalog.registry.cells(found.spec.dataset_version)
        cell = next((cell for cell in cells if cell.modality == modality), None)
        if cell is not None and (pin := catalog.registry.pins.get(cell)) is not None:
            return pin
    return None


def pin_checks(catalog: Catalog, dataset: str, modality: str) -> list[Check]:
    """Return the checks behind what readers get: of each stage that made it, and of its sources.

    A check of several stages is that of the last one. The verdicts are those of the stages' present tables:
    after a closed gate they are of a candidate, and the later stages still of what is published.
    """
    pin = newest_pin(catalog, dataset, modality)
    if pin is None:
        return []
    found: dict[str, Check] = {}
    metas = catalog.snapshot(pin.cell).metas
    for stage in STAGES:
        for stored in metas[stage].checks if stage in metas else []:
            check = stored_check(stored)
            if check.name in DESCRIPTIONS:
                found[check.name] = check
    registry, spec = catalog.registry, catalog.registry.spec(pin.dataset, pin.version)
    drift = sources_unchanged(registry, spec, source_drifts(registry, spec, spec.sources_of(modality)))
    found[drift.name] = drift
    return list(found.values())


def alias_checks(catalog: Catalog, dataset: str, alias: str) -> list[Check]:
    """Return the check of the last promotion to an alias: its gate, with the checks that it made."""
    target = catalog.registry.aliases.target(dataset, alias)
    if target is None:
        return []
    made = [stored_check(stored) for stored in target.checks]
    closed = [check for check in made if not check.passed]
    told = "; ".join(check.description for check in closed) or f"{len(made)} checks passed"
    return [
        replace(
            Check(PROMOTION_GATE, not closed, told, {check.name: check.passed for check in made}),
            waived=bool(closed),
        )
    ]


def stored_check(stored: dict[str, Any]) -> Check:
    """Return a check as a stage or a promotion has stored it."""
    return Check(**{name: value for name, value in stored.items() if name in _FIELDS})
