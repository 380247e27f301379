"""Events on the assets of a dataset: what was published and promoted, its checks and its cost."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import dagster as dg

from mm_assets.cells.checks import Check
from mm_assets.cells.dataset_assets import FOLDER, dataset_key
from mm_assets.cells.dataset_verdicts import alias_checks, newest_pin, pin_checks
from mm_assets.cells.figures import figure_name
from mm_assets.cells.materialization import check_fields, column_schema, explorer_page
from mm_embed_kernels.contracts import feature_contract
from mm_embed_kernels.errors import UserError
from mm_embed_kernels.identity import digest
from mm_resources.catalog import Catalog
from mm_resources.cell import Cell
from mm_resources.registry.aliases import Alias
from mm_resources.registry.pins import Pin

_PIN, _VERSION = "mm/pin", "mm/version"
_COUNTS = ("discovered", "published", "dropped", "failed")
# Figures of the last stage that are the cell's.
_COSTS = ("mm/cost", "mm/cost_per_1000_published", "mm/stored_bytes")


def report_pin(instance: dg.DagsterInstance, catalog: Catalog, pin: Pin) -> None:
    """Report a publish of the newest published version as a materialization of the dataset's asset, once.

    The next run reports a pin whose own run was killed before the report. An older version that is published
    again is not reported, since readers of the dataset should not get it.
    """
    key = dataset_key(pin.dataset, pin.modality)
    last = instance.get_latest_materialization_event(key)
    if (
        last is None
        or last.asset_materialization is None
        or _follows(catalog, pin, last.asset_materialization)
    ):
        event = _materialization(key, catalog, [pin], pin.data_version, f"{pin.dataset}@{pin.version}")
        instance.report_runless_asset_event(event)


def _follows(catalog: Catalog, pin: Pin, last: dg.AssetMaterialization) -> bool:
    """Return whether a pin is newer than the one that was reported last."""
    reported = [last.metadata[name].value for name in (_VERSION, _PIN) if name in last.metadata]
    if len(reported) < 2:
        return True  # A person has reported the materialization, in the UI.
    version, number = str(reported[0]), reported[1]
    if version == pin.version:
        return number != pin.number
    registered = catalog.registry.registration
    try:
        return registered(pin.dataset, version).at <= registered(pin.dataset, pin.version).at
    except UserError:
        return True  # What was reported last is no longer registered.


def report_stage(
    instance: dg.DagsterInstance, catalog: Catalog, cell: Cell, stage: str, result: dg.MaterializeResult[Any]
) -> None:
    """Report what a stage says of the dataset: its checks after the publish and the report, then its cost.

    A cell of an older version says nothing of it.
    """
    if stage not in ("feature_views", "lineage_report"):
        return
    pin = newest_pin(catalog, cell.dataset, cell.modality)
    if pin is None or pin.version != cell.version:
        return
    key = dataset_key(cell.dataset, cell.modality)
    report_checks(instance, key, pin_checks(catalog, cell.dataset, cell.modality))
    metadata = dict(result.metadata or {})
    if stage == "lineage_report" and not metadata["unchanged"]:
        instance.report_runless_asset_event(_cost_observation(key, catalog, pin, metadata))


def _cost_observation(
    key: dg.AssetKey, catalog: Catalog, pin: Pin, metadata: Mapping[str, Any]
) -> dg.AssetObservation:
    rows = catalog.ledger.run_rows(pin.run_id)
    return dg.AssetObservation(
        key,
        description=f"the work of {pin.dataset_version}",
        metadata={
            _VERSION: pin.version,
            _PIN: pin.number,
            **{name: metadata[name] for name in _COSTS if name in metadata},
            "mm/rows_computed": sum(row["computed"] or 0 for row in rows),
            "mm/rows_reused": sum(row["reused"] or 0 for row in rows),
        },
    )


def report_checks(instance: dg.DagsterInstance, key: dg.AssetKey, checks: Iterable[Check]) -> None:
    """Report checks of an asset without partitions, of its last materialization."""
    for check in checks:
        instance.report_runless_asset_event(
            dg.AssetCheckEvaluation(
                asset_key=key, check_name=check.name, blocking=False, **check_fields(check)
            )
        )


def report_alias(instance: dg.DagsterInstance, catalog: Catalog, alias: Alias) -> None:
    """Report a promotion, or its withdrawal, as a materialization of the alias' asset, with its gate."""
    pins = [
        catalog.registry.pins.get(cell, alias.pins[cell.modality])
        for cell in catalog.registry.cells(alias.dataset_version)
        if cell.modality in alias.pins
    ]
    found = [pin for pin in pins if pin is not None]
    version = digest("alias", *sorted(f"{pin.modality}={pin.data_version}" for pin in found))[:24]
    key, name = dataset_key(alias.dataset, alias.alias), f"{alias.dataset}@{alias.alias}"
    instance.report_runless_asset_event(_materialization(key, catalog, found, version, name))
    report_checks(instance, key, alias_checks(catalog, alias.dataset, alias.alias))


def remove_assets(instance: dg.DagsterInstance, catalog: Catalog, dataset: str) -> list[dg.AssetKey]:
    """Remove the assets of a dataset of which no version is left from Dagster's catalogue.

    Returns:
        Their keys; those of a user's own below the same prefix stay.
    """
    if any(name.partition("@")[0] == dataset for name in catalog.registry.datasets()):
        return []
    gone = []
    for key in instance.get_asset_keys(prefix=[FOLDER, dataset]):
        last = instance.get_latest_materialization_event(key)
        event = last.asset_materialization if last is not None else None
        if event is None or _PIN in event.metadata:
            gone.append(key)
    if gone:
        instance.wipe_assets(gone)
    return gone


def _materialization(
    key: dg.AssetKey, catalog: Catalog, pins: list[Pin], data_version: str, name: str
) -> dg.AssetMaterialization:
    """Return the materialization of what readers get of `name`, ``DATASET@VERSION`` or ``DATASET@ALIAS``."""
    counts = {count: sum(pin.accounting[count] for pin in pins) for count in _COUNTS}
    discovered = counts["discovered"] or 1
    recalls = [table.recall for pin in pins for table in pin.tables if table.recall is not None]
    primary = [pin.primary for pin in pins]
    spec = catalog.registry.spec(pins[0].dataset, pins[0].version)
    columns = feature_contract(primary[0].dimension, spec.user_fields)
    rows = sum(table.rows for table in primary)
    explorer = explorer_page("samples", name, pins[0].modality)
    return dg.AssetMaterialization(
        key,
        description=f"{pins[0].dataset_version}: {counts['published']:,} samples published",
        metadata={
            _VERSION: pins[0].version,
            _PIN: pins[0].number if len(pins) == 1 else ", ".join(f"{p.modality} {p.number}" for p in pins),
            "dagster/row_count": rows,
            "dagster/uri": ", ".join(catalog.features.uri(table.table) for table in primary),
            "dagster/column_schema": column_schema(columns),
            "mm/lance_version": ", ".join(str(table.lance_version) for table in primary),
            "mm/rows": rows,
            **{figure_name(count): number for count, number in counts.items()},
            "mm/failed_share": counts["failed"] / discovered,
            "mm/dropped_share": counts["dropped"] / discovered,
            **({"mm/recall": min(recalls)} if recalls else {}),
            "mm/embedder": ", ".join(table.embedder for table in primary),
            "mm/runs": ", ".join(dict.fromkeys(pin.run_id for pin in pins)),
            **({"explorer": dg.MetadataValue.url(explorer)} if explorer else {}),
        },
        tags={"dagster/data_version": data_version},
    )
