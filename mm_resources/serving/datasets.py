"""Versions of datasets as data: what they have published, what it costs, how two of them differ."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from mm_embed_kernels.errors import UserError
from mm_embed_kernels.identity import ALIASES
from mm_resources.costs.cell_costs import cell_cost
from mm_resources.costs.prices import load_prices
from mm_resources.monitoring.distribution_drift import distribution_drifts, largest_drifts
from mm_resources.monitoring.version_diff import common_modalities, diff
from mm_resources.registry.pins import Pin, PinnedTable
from mm_resources.serving.json_values import as_json
from mm_resources.serving.problems import Problem
from mm_resources.serving.queries import describe_pin
from mm_resources.serving.service import Service
from mm_resources.settings import Settings


def list_datasets(service: Service) -> dict[str, Any]:
    """Return all registered versions, each with the cells that it has published."""
    versions: dict[str, dict[str, Any]] = {}
    problems: list[str] = []
    for name, cell, found in service.catalog.registry.published():
        entry = versions.setdefault(name, {"dataset_version": name, "cells": []})
        if isinstance(found, Exception):
            problems.append(str(found))
        elif cell is not None and found is not None:
            counts = {key: value for key, value in found.accounting.items() if key != "failures"}
            entry["cells"].append({**describe_pin(found), "accounting": counts})
    names = sorted({name.partition("@")[0] for name in versions})
    return {"datasets": list(versions.values()), "aliases": _aliases(service, names), "problems": problems}


def _aliases(service: Service, datasets: list[str]) -> list[dict[str, Any]]:
    found = []
    for dataset in datasets:
        for name in sorted(ALIASES):
            if alias := service.catalog.registry.aliases.target(dataset, name):
                found.append(
                    {
                        "alias": f"{dataset}@{name}",
                        "dataset_version": alias.dataset_version,
                        "pins": alias.pins,
                        "moved_at": alias.moved_at,
                        "checks": alias.checks,
                        "reason": alias.reason,
                    }
                )
    return found


def describe_dataset(service: Service, dataset_version: str) -> dict[str, Any]:
    """Return the cells of a version: accounting, tables, spaces, and columns with their types."""
    pins = service.published(dataset_version)
    return {
        "dataset_version": pins[0].dataset_version,
        "asked": dataset_version,
        "cells": [
            {
                **describe_pin(pin),
                "accounting": as_json(pin.accounting),
                "tables": [_describe_table(service, pin, table) for table in pin.tables],
            }
            for pin in pins
        ],
    }


def _describe_table(service: Service, pin: Pin, table: PinnedTable) -> dict[str, Any]:
    def columns() -> dict[str, str]:
        schema = service.catalog.features.dataset(table.table, table.lance_version).schema
        return {field.name: str(field.type) for field in schema}

    return {
        "embedder": table.embedder,
        "primary": table.primary,
        "space": table.space,
        "dimension": table.dimension,
        "rows": table.rows,
        "index": table.index,
        "recall": table.recall,
        "recall_filtered": table.recall_filtered,
        "table": table.table,
        "columns": service.remember(("columns", pin.cell, table.table, table.lance_version), columns),
    }


def read_costs(service: Service, dataset_version: str) -> dict[str, Any]:
    """Return the costs and savings of a version's cells."""
    prices = load_prices(Settings.from_environment().prices)
    pins = service.published(dataset_version)
    cells = [{**vars(found), "savings": found.savings} for found in _costs(service, pins, prices)]
    return {
        "dataset_version": pins[0].dataset_version,
        "currency": prices.currency,
        "cells": [as_json(cell) for cell in cells],
    }


def _costs(service: Service, pins: list[Pin], prices: Any) -> list[Any]:
    return [cell_cost(service.catalog, pin.cell, prices) for pin in pins]


def compare_versions(service: Service, before: str, after: str) -> dict[str, Any]:
    """Return the difference of each modality that both versions have published."""
    old, new = ({pin.modality: pin for pin in service.published(name)} for name in (before, after))
    if not old.keys() & new.keys():
        try:
            common_modalities(service.catalog, before, after)
        except UserError as error:
            raise Problem("not_found", str(error)) from error
    cells = [
        service.remember(
            ("diff", old[name].cell, old[name].number, new[name].cell, new[name].number),
            lambda name=name: _compare_cells(service, old[name], new[name]),  # type: ignore[misc]
        )
        for name in sorted(old.keys() & new.keys())
    ]
    return {
        "before": [describe_pin(pin) for pin in old.values()],
        "after": [describe_pin(pin) for pin in new.values()],
        "cells": cells,
    }


def _compare_cells(service: Service, old: Pin, new: Pin) -> dict[str, Any]:
    """Return the difference of two pins of a modality, and the largest drift of each kind."""
    limits = service.catalog.registry.spec(new.dataset, new.version).drift
    drifts = largest_drifts(distribution_drifts(service.catalog, old, new, limits))
    return {
        **as_json(diff(service.catalog, old.cell, new.cell)),
        "drift": [
            {
                "kind": drift.kind,
                "what": drift.what,
                "value": drift.value,
                "limit": drift.limit,
                "is_within_limit": drift.is_within_limit,
            }
            for drift in drifts
        ],
    }


def all_decisions(service: Service, dataset_version: str, modality: str) -> pa.Table:
    """Return all decisions of a cell, see `FeatureStore.decisions`."""
    service.published(dataset_version, modality)
    return service.features.decisions(dataset_version, modality)
