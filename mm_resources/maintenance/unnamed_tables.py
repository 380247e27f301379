"""Feature tables, and tags of them, that no pin names: candidates that were never published."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from mm_resources.catalog import Catalog
from mm_resources.cell import Cell
from mm_resources.features.table_paths import FOLDER, table_at
from mm_resources.lineages import commits
from mm_resources.registry.damaged_files import describe_damage
from mm_resources.registry.pins import Pin, pin_tag
from mm_resources.storage import dataset_versions
from mm_resources.storage.lance_datasets import open_dataset

_PIN_TAG = re.compile(r"^(.+)\.pin-(\d+)-v(\d+)$")


@dataclass
class PinnedVersions:
    """The versions of feature tables that pins name.

    Attributes:
        pins: table -> cell and pin, for each pin that names a version of it.
        last: cell -> number of its last pin.
    """

    pins: dict[str, list[tuple[Cell, Pin]]] = field(default_factory=lambda: defaultdict(list))
    last: dict[Cell, int] = field(default_factory=dict)

    def versions(self, table: str) -> dict[int, list[tuple[Cell, Pin]]]:
        """Return the pins of each pinned Lance version of a table, by version."""
        found: dict[int, list[tuple[Cell, Pin]]] = defaultdict(list)
        for cell, pin in self.pins.get(table, []):
            for each in pin.tables:
                if each.table == table:
                    found[each.lance_version].append((cell, pin))
        return dict(sorted(found.items()))

    def tags(self, table: str) -> set[str]:
        """Return the tags by which the pins keep their versions of a table."""
        return {each.tag for _, pin in self.pins.get(table, []) for each in pin.tables if each.table == table}


def pinned_versions(catalog: Catalog) -> PinnedVersions:
    """Read the pins of all cells.

    Raises:
        UserError: when one of them cannot be read.
    """
    found = PinnedVersions()
    for cell in catalog.registry.all_cells():
        for number in catalog.registry.pins.numbers(cell):
            pin = catalog.registry.pins.get(cell, number)
            found.last[cell] = number
            if pin is not None:
                for table in {each.table for each in pin.tables}:
                    found.pins[table].append((cell, pin))
    return found


def remove_unnamed(catalog: Catalog, older_than: timedelta) -> tuple[int, int]:
    """Remove feature tables, and tags of them, that no pin names and none can come to name.

    Nothing is removed while a file of the registry cannot be read: what it names is unknown. Nor while a
    forgetting is incomplete: its receipt names tables that pins will name.

    Args:
        older_than: age of the last version of a table that is removed.

    Returns:
        (versions, bytes of their data files) of the removed tables.
    """
    if describe_damage(catalog.registry) or not all(receipt.done_at for receipt in catalog.receipts.all()):
        return 0, 0
    pinned, before = pinned_versions(catalog), datetime.now(UTC) - older_than
    versions = size = 0
    for name in list(catalog.store.tables(FOLDER)):
        table = table_at(name)
        if table in pinned.pins:
            _remove_tags(catalog, pinned, table)
        elif catalog.features.written_at(table) <= before:
            uri = catalog.features.uri(table)
            opened = open_dataset(uri)
            versions += 0 if opened is None else len(opened.versions())
            size += dataset_versions.data_bytes(uri)
            catalog.features.remove(table)
    return versions, size


def _remove_tags(catalog: Catalog, pinned: PinnedVersions, table: str) -> None:
    """Remove the tags of candidates whose pin another run has taken: no pin can come to name them."""
    opened = open_dataset(catalog.features.uri(table))
    kept = pinned.tags(table)
    cells = {pin_tag(cell.version, 0, 0).split(".pin-")[0]: cell for cell, _ in pinned.pins[table]}
    first, _ = pinned.pins[table][0]
    for tag in opened.tags.list() if opened is not None else ():
        match = _PIN_TAG.match(tag)
        if match is None or tag in kept:
            continue
        cell = cells.get(match[1], Cell(first.dataset, match[1], first.modality))
        if int(match[2]) <= pinned.last.get(cell, 0):
            catalog.features.untag(table, tag)


def leave_damage(catalog: Catalog, names: set[str]) -> None:
    """Remove the damaged feature tables that no pin names any more; of others, restore a pinned version.

    Args:
        names: names of the tables in the store.
    """
    pinned = pinned_versions(catalog)
    for name in names:
        table = table_at(name)
        opened = open_dataset(catalog.store.uri(name))
        if opened is None:
            continue
        versions = pinned.versions(table)
        if not versions:
            catalog.features.remove(table)
        elif int(opened.version) not in versions:
            # Nobody reads the head: it holds what a pin names, and no damage of its own.
            commits.restore(catalog.store.uri(name), max(versions), "leave a damaged candidate")
