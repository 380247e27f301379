"""Published datasets as assets of their own: ``features/DATASET/MODALITY`` and ``features/DATASET/ALIAS``.

They have no partitions, so that an asset of a user's own depends on a dataset by its key alone; each publish
and each promotion reports a materialization with the data version of what readers get from then on.
"""

from __future__ import annotations

import dagster as dg

from mm_assets.cells.figures import figure_name
from mm_assets.cells.materialization import column_schema
from mm_embed_kernels.contracts import FEATURES
from mm_embed_kernels.errors import UserError
from mm_embed_kernels.identity import digest
from mm_resources.catalog import Catalog
from mm_resources.registry.aliases import Alias
from mm_resources.registry.pins import Pin

FOLDER = "features"
_PIN, _VERSION = "mm/pin", "mm/version"


def dataset_key(dataset: str, name: str) -> dg.AssetKey:
    """Return the key of a dataset's features of a modality, or under an alias."""
    return dg.AssetKey([FOLDER, dataset, name])


def dataset_specs(dataset: str, modalities: list[str], aliases: list[str]) -> list[dg.AssetSpec]:
    """Declare a dataset's assets; without it Dagster knows them only by their materializations."""
    return [
        dg.AssetSpec(
            dataset_key(dataset, name),
            description=f"what readers get of {dataset}{at}: the newest {what}, published by its gates",
            group_name=FOLDER,
            kinds={"lancedb"},
            metadata={"dagster/column_schema": column_schema(FEATURES)},
        )
        for name, at, what in [
            *((modality, "", f"version's {modality} features") for modality in modalities),
            *((alias, f"@{alias}", "version that was promoted to it") for alias in aliases),
        ]
    ]


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
        event = _materialization(key, catalog, [pin], pin.data_version)
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


def report_alias(instance: dg.DagsterInstance, catalog: Catalog, alias: Alias) -> None:
    """Report a promotion, or its withdrawal, as a materialization of the alias' asset."""
    pins = [
        catalog.registry.pins.get(cell, alias.pins[cell.modality])
        for cell in catalog.registry.cells(alias.dataset_version)
        if cell.modality in alias.pins
    ]
    found = [pin for pin in pins if pin is not None]
    version = digest("alias", *sorted(f"{pin.modality}={pin.data_version}" for pin in found))[:24]
    key = dataset_key(alias.dataset, alias.alias)
    instance.report_runless_asset_event(_materialization(key, catalog, found, version))


def _materialization(
    key: dg.AssetKey, catalog: Catalog, pins: list[Pin], data_version: str
) -> dg.AssetMaterialization:
    counts = {
        figure_name(name): sum(pin.accounting[name] for pin in pins)
        for name in ("discovered", "published", "dropped", "failed")
    }
    recalls = [table.recall for pin in pins for table in pin.tables if table.recall is not None]
    primary = [pin.primary for pin in pins]
    return dg.AssetMaterialization(
        key,
        description=f"{pins[0].dataset_version}: {counts['mm/published']:,} samples published",
        metadata={
            _VERSION: pins[0].version,
            _PIN: pins[0].number if len(pins) == 1 else ", ".join(f"{p.modality} {p.number}" for p in pins),
            "dagster/row_count": sum(table.rows for table in primary),
            "dagster/uri": ", ".join(catalog.features.uri(table.table) for table in primary),
            "mm/lance_version": ", ".join(str(table.lance_version) for table in primary),
            **counts,
            **({"mm/recall": min(recalls)} if recalls else {}),
            "mm/runs": ", ".join(dict.fromkeys(pin.run_id for pin in pins)),
        },
        tags={"dagster/data_version": data_version},
    )
