"""Bases of a cell's feature tables, and the names of tables that are written whole."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from mm_embed_kernels.embedders import Embedder
from mm_embed_kernels.errors import UserError
from mm_embed_kernels.identity import split_dataset_version
from mm_resources.cell import Cell
from mm_resources.features.feature_tables import FeatureTables, table_name
from mm_resources.registry.pins import Pin, PinnedTable
from mm_resources.registry.registry import Registry

# Tables of one cell and embedder; far more than it is ever written whole.
_MOST_TABLES = 10_000
# Much shorter than upkeep's period of grace: a table that upkeep removes is not written to.
_RECENT = timedelta(days=1)


def bases_of(
    registry: Registry, cell: Cell, parent: Cell | None, embedder: Embedder
) -> Iterator[PinnedTable]:
    """Yield the published tables of an embedder on which a cell's next one may be written, best first.

    The cell's own, the parent's, then those of the other versions of the dataset, newest publish first. The
    base decides what is written, never what is published.
    """
    yielded: set[tuple[str, int]] = set()
    for pin in _pins(registry, cell, parent):
        for table in pin.tables:
            name = (table.table, table.lance_version)
            same = (table.embedder, table.fingerprint) == (embedder.name, embedder.fingerprint)
            if same and name not in yielded:
                yielded.add(name)
                yield table


def _pins(registry: Registry, cell: Cell, parent: Cell | None) -> Iterator[Pin]:
    near = [each for each in (cell, parent) if each is not None]
    for each in near:
        yield from filter(None, [_pin(registry, each)])
    others = [_pin(registry, each) for each in _cells(registry, cell) if each not in near]
    yield from sorted(filter(None, others), key=lambda pin: pin.published_at, reverse=True)


def _pin(registry: Registry, cell: Cell) -> Pin | None:
    """Return the latest pin of a cell; None also where it cannot be read, which `mm doctor` reports."""
    try:
        return registry.pins.get(cell)
    except UserError:
        return None


def _cells(registry: Registry, cell: Cell) -> list[Cell]:
    """Return the cells of a modality of all versions of a dataset."""
    versions = [split_dataset_version(name) for name in registry.datasets()]
    return [Cell(dataset, version, cell.modality) for dataset, version in versions if dataset == cell.dataset]


def free_table_name(registry: Registry, features: FeatureTables, cell: Cell, embedder: str) -> str:
    """Return the name of the table into which a cell's rows are written whole: no pin names it.

    Nor has a forgetting removed a table of this name. It may exist, with recent candidates that were never
    published; older ones are left to upkeep.
    """
    name = table_name(cell, embedder)
    gone = features.receipts.tables()
    names = [name, *(f"{name}-{number}" for number in range(2, _MOST_TABLES + len(gone)))]
    names = [each for each in names if each not in gone]
    pinned: set[str] | None = None
    for place, chosen in enumerate(names):
        if not features.exists(chosen):
            return chosen
        if place == 0:
            pinned = pinned_tables(registry, cell)
        is_recent = datetime.now(UTC) - features.written_at(chosen) < _RECENT
        if is_recent and pinned is not None and chosen not in pinned:
            return chosen
    raise UserError(f"{name} was written whole {_MOST_TABLES:,} times; run `mm upkeep`")


def pinned_tables(registry: Registry, cell: Cell) -> set[str] | None:
    """Return the tables that a pin of a version of the cell's dataset and modality names.

    None where one of these pins cannot be read: it may name any table.
    """
    named: set[str] = set()
    for each in _cells(registry, cell):
        for number in registry.pins.numbers(each):
            try:
                pin = registry.pins.get(each, number)
            except UserError:
                return None
            named |= {table.table for table in pin.tables} if pin else set()
    return named
