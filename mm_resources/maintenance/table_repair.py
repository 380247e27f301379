"""Repair of damaged tables: restore copies, remove damaged rows, and name what is to be computed again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow as pa

from mm_resources.blobs.blob_index import INDEX
from mm_resources.catalog import Catalog
from mm_resources.cell import Cell
from mm_resources.features.reader_tags import move_reader_tags
from mm_resources.features.table_paths import table_path
from mm_resources.maintenance.stage_versions import leave_damaged_stages
from mm_resources.maintenance.table_verification import TableCheck, verify_table
from mm_resources.registry.pins import Pin, pin_tag
from mm_resources.storage import lance_datasets
from mm_resources.storage.file_hashes import restore_manifest
from mm_resources.storage.table_files import drop_fragments

# Stage that reads the cache of each kind of kernel. A source is fetched again where a run needs it.
_READERS = {
    "probe": "sample_metadata",
    "segment": "segments",
    "transcribe": "segments",
    "embed": "embeddings",
}
_BLOB_INDEX, _LEDGER = "blobs/index.lance", "ledger/stages.lance"


@dataclass
class Repair:
    """The outcome of a repair, and the work that it leaves to backfills.

    Attributes:
        cells: cells with stages that the next backfill computes again.
        tables: table -> its damaged versions, which pins may name.
        notes: what was done, and what cannot be repaired, a line each.
        left: damaged tables that cannot be computed again.
    """

    cells: list[Cell] = field(default_factory=list)
    tables: dict[str, set[int]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)

    def mark(self, catalog: Catalog, cell: Cell, *stages: str) -> None:
        """Mark stages of a cell as out of date, so that a backfill computes them again."""
        for stage in stages:
            catalog.tables.mark_stale(stage, cell)
        if cell not in self.cells:
            self.cells.append(cell)


def repair_tables(catalog: Catalog, checks: Iterable[TableCheck]) -> Repair:
    """Repair damaged tables as far as is possible without computing; repeating a repair completes it."""
    repair = Repair()
    for check in checks:
        if check.is_damaged:
            _repair_table(catalog, check, repair)
    return repair


def _restore_manifests(catalog: Catalog, check: TableCheck, repair: Repair) -> TableCheck:
    """Restore the damaged manifests of a table that have a copy, and verify it again."""
    uri, restored = catalog.store.uri(check.table), 0
    for damage in check.damaged.get(0, []):
        if restore_manifest(uri, damage.file):
            repair.notes.append(f"{check.table}: {damage.file} is restored from its copy")
            restored += 1
    return verify_table(catalog.store, check.table) if restored else check


def _repair_table(catalog: Catalog, check: TableCheck, repair: Repair) -> None:
    check = _restore_manifests(catalog, check, repair)
    if check.error or check.damaged.get(0):
        cause = check.error or "a manifest is damaged and has no copy"
        repair.left.append(f"{check.table}: {cause}; restore it from a backup")
        return
    uri = catalog.store.uri(check.table)
    part, *names = check.table.removesuffix(".lance").split("/")
    fragments = {each.fragment for each in check.damaged.get(check.current, []) if each.fragment is not None}
    if part == "cache":
        rows = drop_fragments(uri, fragments)
        repair.notes.append(f"{check.table}: {rows:,} damaged rows are removed")
        for cell, stage in _readers(catalog, names[0]):
            repair.mark(catalog, cell, stage)
    elif check.table == _BLOB_INDEX:
        rows = _restore_index(catalog, uri, fragments)
        repair.notes.append(f"{check.table}: {rows:,} locations are restored from the cells' tables")
    elif check.table == _LEDGER:
        rows = drop_fragments(uri, fragments)
        repair.notes.append(f"{check.table}: {rows:,} damaged rows are removed, and these runs' costs")
    elif part == "failures":
        stage, cell = names[0], Cell(*names[1:])
        repair.tables[check.table] = set(check.damaged)
        repair.mark(catalog, cell, *([stage] if check.current in check.damaged else []))
    elif part == "stages":
        repair.tables[check.table] = set(check.damaged)
        _mark_stages(catalog, check, repair)
    elif part == "features":
        repair.tables[check.table] = set(check.damaged)
        for cell in _cells_of(catalog, names[0], repair):
            repair.mark(catalog, cell, "feature_table", "feature_views")
    else:
        repair.left.append(f"{check.table}: it cannot be computed again; restore it from a backup")


def _mark_stages(catalog: Catalog, check: TableCheck, repair: Repair) -> None:
    """Mark the stages of all cells that publish a damaged version of a table; note those that pins name."""
    asset = check.table.split("/")[1]
    for cell in catalog.registry.all_cells(problems=repair.notes):
        state, damaged = catalog.tables.state(asset, cell), check.damaged
        if state is not None and (state.table, state.lance_version in damaged) == (check.table, True):
            repair.mark(catalog, cell, asset)
        pins = (catalog.registry.pins.get(cell, number) for number in catalog.registry.pins.numbers(cell))
        places = [pin.place(asset) for pin in pins if pin is not None and asset in pin.stages]
        if any(each["table"] == check.table and each["lance_version"] in damaged for each in places):
            repair.mark(catalog, cell)


def _cells_of(catalog: Catalog, table: str, repair: Repair) -> Iterator[Cell]:
    """Yield the cells that have published, or written, a version of a feature table."""
    for cell in catalog.registry.all_cells(problems=repair.notes):
        pins = (catalog.registry.pins.get(cell, number) for number in catalog.registry.pins.numbers(cell))
        published = any(each.table == table for pin in pins if pin for each in pin.tables)
        if published or table in _written_tables(catalog, cell):
            yield cell


def _written_tables(catalog: Catalog, cell: Cell) -> set[str]:
    rows = catalog.tables.read_or_empty("feature_table", cell, pa.schema([("table", pa.string())]))
    try:
        return set(rows.read_all()["table"].to_pylist())
    except OSError:
        return set()  # a damaged stage, which is repaired by itself


def _readers(catalog: Catalog, scope: str) -> Iterator[tuple[Cell, str]]:
    """Yield the cells, with their stage, whose last result read the cache of a kernel."""
    kind, _, name = scope.partition("-")
    stage = _READERS.get(kind)
    for cell in catalog.registry.all_cells(problems=[]) if stage else ():
        meta = catalog.tables.meta(str(stage), cell)
        kernels = [kernel.partition(":") for kernel in (meta.work if meta else {})]
        if any(own == kind and (model or cell.modality).startswith(name) for own, _, model in kernels):
            yield cell, str(stage)


def _restore_index(catalog: Catalog, uri: str, fragments: set[int]) -> int:
    """Index again the blobs that the cells refer to and whose rows are damaged; return how many."""
    dataset = lance_datasets.open_dataset(uri)
    if dataset is None or not fragments:
        return 0
    sound = [each for each in dataset.get_fragments() if each.fragment_id not in fragments]
    known = (
        dataset.scanner(columns=["content_hash"], fragments=sound).to_table()["content_hash"]
        if sound
        else pa.array([], pa.string())
    )
    hashes, missing = set(known.to_pylist()), dict[str, dict[str, Any]]()
    for cell in catalog.registry.all_cells(problems=[]):
        stage = catalog.tables.read_or_empty("content_blobs", cell, INDEX, "path IS NOT NULL")
        for row in stage.read_all().to_pylist():
            if row["content_hash"] not in hashes:
                missing[row["content_hash"]] = row
    # Before the damaged rows go: a repair that is killed in between is completed by the next one.
    if missing:
        lance_datasets.append(uri, pa.Table.from_pylist(list(missing.values()), schema=INDEX))
    drop_fragments(uri, fragments)
    return len(missing)


def repair_pins(catalog: Catalog, repair: Repair) -> list[str]:
    """Point the pins that name damaged versions to tables with the same rows; return a line for each change.

    Rows are the same where the data version of a stage, or the digest of a feature table, is.
    """
    lines: list[str] = []
    pins = catalog.registry.pins
    for cell in repair.cells:
        latest = pins.get(cell)
        for number in pins.numbers(cell):
            pin = pins.get(cell, number)
            if pin is None or latest is None:
                continue
            moved = _repaired_pin(catalog, cell, pin, latest, repair.tables)
            if moved != pin:
                pins.replace(cell, moved)
                _untag(catalog, pin, moved)
                lines.append(f"{cell.partition_key} pin {number}: its tables are computed again")
        move_reader_tags(catalog.registry, catalog.features, cell.dataset, cell.modality)
    leave_damaged_stages(catalog, repair.tables)
    return lines


def _untag(catalog: Catalog, pin: Pin, moved: Pin) -> None:
    """Release the versions that a pin no longer names; after it has moved, so that a kill loses none."""
    for before, after in zip(pin.tables, moved.tables, strict=True):
        if (before.table, before.tag) != (after.table, after.tag):
            catalog.features.untag(before.table, before.tag)


def _repaired_pin(catalog: Catalog, cell: Cell, pin: Pin, latest: Pin, damaged: dict[str, set[int]]) -> Pin:
    tables = []
    for table in pin.tables:
        name = table_path(table.table)
        same = [
            each
            for each in latest.tables
            if (each.embedder, each.digest) == (table.embedder, table.digest)
            and each.lance_version not in damaged.get(table_path(each.table), ())
        ]
        if table.lance_version in damaged.get(name, ()) and same:
            version, tag = same[0].lance_version, pin_tag(cell.version, pin.number, same[0].lance_version)
            catalog.features.tag(same[0].table, version, tag)
            table = replace(table, table=same[0].table, lance_version=version, tag=tag, index=same[0].index)
        tables.append(table)
    stages = {}
    for asset, stage in pin.stages.items():
        place, now = pin.place(asset), catalog.tables.state(asset, cell)
        is_same = now is not None and now.meta.data_version == stage["data_version"]
        if now is not None and is_same and place["lance_version"] in damaged.get(place["table"], ()):
            stage = {**stage, **now.place}
        stages[asset] = stage
    return replace(pin, tables=tables, stages=stages)
