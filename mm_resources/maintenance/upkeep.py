"""Upkeep of a store: small files are joined, what nobody can ask for any more is removed, nothing that is published changes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

from mm_embed_kernels.contracts.pipeline import FAILURE_STAGES
from mm_resources.catalog import Catalog
from mm_resources.cell import Cell
from mm_resources.compute.cache import doubles
from mm_resources.storage import lance_datasets
from mm_resources.storage.store import Store
from mm_resources.tables.failure_events import FailureEvents
from mm_resources.tables.stage_tables import StageTables

# Longer than any run: what a run holds open, or has written and not yet published, is younger.
OLDER_THAN = timedelta(days=7)
# Parts of the store that hold Lance datasets, and whether these grow by commits (others are replaced as a whole).
_PARTS = {"blobs": True, "cache": True, "ledger": True, "stages": False, "failures": False, "features": False}
CURRENT = "current"


@dataclass
class Upkept:
    """What upkeep did to one part of the store.

    Attributes:
        part: folder below the root.
        tables: Lance datasets in it.
        joined: small fragments that were joined with others.
        doubles: cache rows removed because a better or equal one has their key.
        versions, bytes: superseded versions removed, and what they alone held.
    """

    part: str
    tables: int = 0
    joined: int = 0
    doubles: int = 0
    versions: int = 0
    bytes: int = 0


def upkeep(catalog: Catalog, older_than: timedelta = OLDER_THAN) -> list[Upkept]:
    """Tidy the whole store; safe beside running backfills and readers.

    Args:
        older_than: age from which what is superseded may go. What a pin names bears a tag and stays, however old it is.
    """
    store = catalog.store
    hold_failures(catalog)
    found = [_part(store, part, grows, older_than) for part, grows in _PARTS.items()]
    for name in store.unfinished(older_than):
        store.remove(name)
    return found


def hold_stages(
    tables: StageTables, failures: FailureEvents, cell: Cell, pin: int, versions: Mapping[str, int]
) -> None:
    """Keep what a pin's lineage is read from: the stages' tables at `versions`, and the failures that these name."""
    for asset, version in versions.items():
        tables.hold(asset, cell, version, f"pin-{pin}")
        meta = tables.meta(asset, cell, version)
        if meta is not None and meta.failures:
            failures.hold(asset, cell, meta.failures, f"pin-{pin}")


def hold_failures(catalog: Catalog) -> None:
    """Keep the failures that the stages name now: a run that was killed may have left newer ones, which count for nothing."""
    tables, failures, registry = catalog.tables, catalog.failures, catalog.registry
    for name in registry.datasets():
        for cell in registry.cells(name):
            for asset in FAILURE_STAGES:
                meta = tables.meta(asset, cell)
                if meta is not None and meta.failures:
                    failures.hold(asset, cell, meta.failures, CURRENT)


def _part(store: Store, part: str, grows: bool, older_than: timedelta) -> Upkept:
    done = Upkept(part)
    for name in store.tables(part):
        uri = store.uri(name)
        done.tables += 1
        if part == "cache":
            done.doubles += _remove_doubles(uri)
        if grows:
            done.joined += lance_datasets.compact(uri, 2)
        versions, size = lance_datasets.clean(uri, older_than)
        done.versions, done.bytes = done.versions + versions, done.bytes + size
    return done


def _remove_doubles(uri: str) -> int:
    """Leave one row for each key of a cache space, the one that readers choose; how many went."""
    dataset = lance_datasets.open_dataset(uri)
    return 0 if dataset is None else lance_datasets.delete_rows(dataset, doubles(dataset))
