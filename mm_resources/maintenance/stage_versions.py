"""Versions of stage tables that refs and pins name; what none names is removed."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from mm_embed_kernels.contracts.pipeline import STAGES
from mm_resources.catalog import Catalog
from mm_resources.cell import Cell
from mm_resources.lineages import commits
from mm_resources.registry.damaged_files import describe_damage
from mm_resources.storage import dataset_versions
from mm_resources.storage.lance_datasets import open_dataset
from mm_resources.storage.layout import has_earlier_tables
from mm_resources.storage.store import remove_tree
from mm_resources.tables.stage_refs import StageRef, parse_ref_tag
from mm_resources.tables.stage_tables import failures_path

FOLDER = "stages"


@dataclass
class NamedVersions:
    """The versions of stage tables that are named.

    Attributes:
        refs: table -> cell, asset and ref, for each ref that names a version of it.
        pinned: cell, asset and number of the refs that pins name.
        places: table -> the versions that pins of a store of before refs name.
        last: cell and asset -> number of the last ref.
    """

    refs: dict[str, list[tuple[Cell, str, StageRef]]] = field(default_factory=lambda: defaultdict(list))
    pinned: set[tuple[Cell, str, int]] = field(default_factory=set)
    places: dict[str, set[int]] = field(default_factory=lambda: defaultdict(set))
    last: dict[tuple[Cell, str], int] = field(default_factory=dict)

    def versions(self, table: str) -> list[int]:
        """Return the named Lance versions of a table, ascending."""
        return sorted({ref.lance_version for _, _, ref in self.refs[table]} | self.places[table])

    def tags(self, table: str) -> set[str]:
        """Return the tags by which refs keep versions of a table."""
        return {ref.tag for _, _, ref in self.refs[table]}


def named_versions(catalog: Catalog) -> NamedVersions:
    """Read all refs, and the pins of all cells.

    Raises:
        UserError: when one of them cannot be read.
    """
    found = NamedVersions()
    for cell, asset, number, ref in catalog.tables.refs.every():
        if isinstance(ref, Exception):
            raise ref
        found.refs[ref.table].append((cell, asset, ref))
        found.last[cell, asset] = number
    for cell, _, pin in catalog.registry.pins.every(catalog.registry.all_cells()):
        if isinstance(pin, Exception):
            raise pin
        for asset in pin.stages:
            place = pin.place(asset)
            if place["ref"]:
                found.pinned.add((cell, asset, place["ref"]))
            else:
                found.places[place["table"]].add(place["lance_version"])
    return found


def adopt_tables(catalog: Catalog) -> None:
    """Give each table of a store of before refs its first ref."""
    if has_earlier_tables(catalog.store):
        for cell in catalog.registry.all_cells():
            for asset in STAGES:
                catalog.tables.fence(asset, cell)


def remove_superseded(catalog: Catalog, older_than: timedelta) -> None:
    """Remove the refs that were superseded before this age, but those that pins name."""
    named, before = named_versions(catalog), datetime.now(UTC) - older_than
    superseded: dict[tuple[Cell, str], list[StageRef]] = defaultdict(list)
    for refs in named.refs.values():
        for cell, asset, ref in refs:
            superseded[cell, asset].append(ref)
    for (cell, asset), own in superseded.items():
        own.sort(key=lambda ref: ref.number)
        for ref, successor in itertools.pairwise(own):
            is_old = datetime.fromisoformat(successor.meta.at) <= before
            if is_old and (cell, asset, ref.number) not in named.pinned:
                remove_ref(catalog, asset, cell, ref)


def remove_ref(catalog: Catalog, asset: str, cell: Cell, ref: StageRef) -> None:
    """Remove a ref, then the tags by which it keeps rows and failures."""
    catalog.tables.refs.remove(asset, cell, ref.number)
    dataset_versions.untag(catalog.store.uri(ref.table), ref.tag)
    if ref.meta.failures:
        failures = catalog.store.uri(failures_path(asset, cell))
        dataset_versions.untag(failures, _failures_tag(failures, cell, ref.number))


def leave_damaged_stages(catalog: Catalog, damaged: Mapping[str, Collection[int]]) -> None:
    """Remove what names damaged versions and is neither a last ref nor named by a pin; restore sound heads.

    Args:
        damaged: table -> its damaged versions.
    """
    named = named_versions(catalog)
    for table, versions in damaged.items():
        for cell, asset, ref in named.refs.get(table, []):
            is_last = ref.number == named.last[cell, asset]
            is_pinned = (cell, asset, ref.number) in named.pinned
            if ref.lance_version in versions and not is_last and not is_pinned:
                remove_ref(catalog, asset, cell, ref)
    named = named_versions(catalog)
    for table, versions in damaged.items():
        opened = open_dataset(catalog.store.uri(table)) if table.startswith(f"{FOLDER}/") else None
        sound = [version for version in named.versions(table) if version not in versions]
        if opened is not None and sound and int(opened.version) in versions:
            # Nobody reads the head: it holds what is named, and no damage of its own.
            commits.restore(catalog.store.uri(table), sound[-1], "leave a damaged candidate")
        elif opened is not None and not named.versions(table) and not _may_be_earlier(catalog, table):
            remove_tree(catalog.store, table)


def _failures_tag(uri: str, cell: Cell, number: int) -> str:
    """Return the tag by which a ref keeps its failures, "" without one."""
    opened = open_dataset(uri)
    wanted = cell.version.replace("..", "-"), number
    tags: list[str] = [] if opened is None else list(opened.tags.list())
    return next((tag for tag in tags if parse_ref_tag(tag) == wanted), "")


def remove_unnamed_stages(catalog: Catalog, older_than: timedelta) -> tuple[int, int]:
    """Remove stage tables, and tags of them, that no ref names and none can come to name.

    Nothing is removed while a file of the registry cannot be read, or a forgetting is incomplete.

    Args:
        older_than: age since when refs are superseded, and of the last version of a table that is removed.

    Returns:
        (versions, bytes of their data files) of the removed tables.
    """
    if describe_damage(catalog.registry) or not all(receipt.done_at for receipt in catalog.receipts.all()):
        return 0, 0
    remove_superseded(catalog, older_than)
    named, before = named_versions(catalog), datetime.now(UTC) - older_than
    versions = size = 0
    for name in list(catalog.store.tables(FOLDER)):
        if named.versions(name):
            _remove_tags(catalog, named, name)
        elif not _may_be_earlier(catalog, name) and _written_at(catalog, name) <= before:
            uri = catalog.store.uri(name)
            opened = open_dataset(uri)
            versions += 0 if opened is None else len(opened.versions())
            size += dataset_versions.data_bytes(uri)
            remove_tree(catalog.store, name)
    return versions, size


def _may_be_earlier(catalog: Catalog, name: str) -> bool:
    """Return whether a table without refs states itself what is published of it."""
    _, asset, *cell = name.removesuffix(".lance").split("/")
    state = catalog.tables.state(asset, Cell(*cell)) if len(cell) == 3 else None
    return state is not None and state.number == 0


def _written_at(catalog: Catalog, name: str) -> datetime:
    manifests = catalog.store.entries(f"{name}/_versions")
    return max((each.modified for each in manifests), default=datetime.now(UTC))


def _remove_tags(catalog: Catalog, named: NamedVersions, name: str) -> None:
    """Remove the tags of rows whose number another run has taken: no ref can come to name them."""
    uri = catalog.store.uri(name)
    opened: Any = open_dataset(uri)
    kept = named.tags(name)
    first, asset, _ = named.refs[name][0] if named.refs[name] else (None, "", None)
    for tag in opened.tags.list() if opened is not None and first is not None else ():
        parsed = parse_ref_tag(tag)
        if parsed is None or tag in kept or first is None:
            continue
        versions = {cell.version.replace("..", "-"): cell for cell, _ in named.last}
        version = versions[parsed[0]].version if parsed[0] in versions else parsed[0]
        last = named.last.get((Cell(first.dataset, version, first.modality), asset), 0)
        if parsed[1] <= last:
            dataset_versions.untag(uri, tag)
