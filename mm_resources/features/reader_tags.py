"""Tags of feature tables that move with the pins, for readers that open the tables without the registry.

`published-VERSION` names the last publish of a dataset version, `published` that of the version registered
last among those of the table, and the name of an alias (`production`) what was promoted to it. They follow
the pins after each publish, promotion and upkeep; readers who need the very pin resolve it by `FeatureStore`.
A file of the registry that cannot be read, which `mm doctor` reports, loses only its own tags.
"""

from __future__ import annotations

from collections import defaultdict

from mm_embed_kernels.errors import UserError
from mm_embed_kernels.identity import ALIASES, split_dataset_version
from mm_resources.cell import Cell
from mm_resources.features.bases import pinned_tables
from mm_resources.features.feature_tables import FeatureTables
from mm_resources.registry.aliases import Alias
from mm_resources.registry.pins import Pin, PinnedTable
from mm_resources.registry.registry import Registry
from mm_resources.storage.lance_datasets import open_dataset

PUBLISHED = "published"


def move_reader_tags(registry: Registry, features: FeatureTables, dataset: str, modality: str) -> None:
    """Move the tags of a dataset's tables of one modality to what is published now."""
    wanted = _wanted_tags(registry, dataset, modality)
    names = [name.removesuffix(".lance") for name in features.store.names("features")]
    pinned: set[str] | None = None
    for table in [name for name in names if name.startswith(f"{dataset}.") or name in wanted]:
        opened = open_dataset(features.uri(table))
        tags = {} if opened is None else opened.tags.list()
        own = wanted.get(table, {})
        for tag, version in own.items():
            if tag not in tags or int(tags[tag]["version"]) != version:
                features.tag(table, version, tag)
        outdated = [tag for tag in tags if _moves(tag) and tag not in own]
        if outdated and not own and pinned is None:
            # It may be a table of another modality.
            pinned = pinned_tables(registry, Cell(dataset, "", modality)) or set()
        for tag in outdated if own or table in (pinned or ()) else ():
            features.untag(table, tag)


def _moves(tag: str) -> bool:
    return tag in ALIASES or tag == PUBLISHED or tag.startswith(f"{PUBLISHED}-")


def _wanted_tags(registry: Registry, dataset: str, modality: str) -> dict[str, dict[str, int]]:
    """Return table -> tag -> Lance version."""
    wanted: dict[str, dict[str, int]] = defaultdict(dict)
    versions = [split_dataset_version(name) for name in registry.datasets()]
    own = [version for name, version in versions if name == dataset]
    for version in sorted(own, key=lambda each: _registered_at(registry, dataset, each)):
        for table in _tables(registry, Cell(dataset, version, modality)):
            wanted[table.table][PUBLISHED] = table.lance_version
            wanted[table.table][f"{PUBLISHED}-{version.replace('..', '-')}"] = table.lance_version
    for alias in ALIASES:
        target = _target(registry, dataset, alias)
        number = target.pins.get(modality) if target else None
        if target is not None and number is not None:
            for table in _tables(registry, Cell(dataset, target.version, modality), number):
                wanted[table.table][alias] = table.lance_version
    return wanted


def _target(registry: Registry, dataset: str, alias: str) -> Alias | None:
    try:
        return registry.aliases.target(dataset, alias)
    except UserError:
        return None


def _registered_at(registry: Registry, dataset: str, version: str) -> tuple[str, str]:
    try:
        return registry.registration(dataset, version).at, version
    except UserError:
        return "", version


def _tables(registry: Registry, cell: Cell, number: int | None = None) -> list[PinnedTable]:
    """Return the tables of a pin; none where it cannot be read."""
    try:
        pin: Pin | None = registry.pins.get(cell, number)
    except UserError:
        return []
    return list(pin.tables) if pin else []
