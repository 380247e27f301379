"""Updates of pins after their tables were rewritten."""

from __future__ import annotations

from dataclasses import asdict, replace

from mm_resources.blobs.receipts import Receipt
from mm_resources.catalog import Catalog
from mm_resources.cell import Cell
from mm_resources.ledger.accounting import account
from mm_resources.maintenance.stage_replays import moved_place
from mm_resources.registry.pins import Pin
from mm_resources.tables.stage_tables import stage_path


def move_pins(catalog: Catalog, receipt: Receipt) -> None:
    """Point every pin to the versions that hold the remaining rows, with their counts and digests."""
    pins = catalog.registry.pins
    for cell, number, pin in pins.every(catalog.registry.all_cells()):
        if isinstance(pin, Exception):
            raise pin
        if (moved := _moved_pin(catalog, cell, pin, receipt)) != pin:
            receipt.pins = sorted({*receipt.pins, f"{cell.partition_key} pin {number}"})
            catalog.receipts.write(receipt)
            pins.replace(cell, replace(moved, forgotten=sorted({*pin.forgotten, receipt.number})))


def _moved_pin(catalog: Catalog, cell: Cell, pin: Pin, receipt: Receipt) -> Pin:
    """Return a pin of the rewritten versions; equal to `pin` when none of its tables was rewritten."""
    tables = [
        replace(table, **receipt.moved.get(f"{table.table}@{table.lance_version}", {}))
        for table in pin.tables
    ]
    stages = {
        asset: {**stage, **moved_place(receipt, stage_path(asset, cell, stage), int(stage["lance_version"]))}
        for asset, stage in pin.stages.items()
    }
    moved = replace(pin, tables=tables, stages=stages)
    if moved == pin or not stages:
        return moved
    counts = account(
        catalog.tables,
        catalog.failures,
        cell,
        catalog.features.rows(moved, ["sample_id"]),
        sum(table.rows for table in tables),
        stages,
    )
    return replace(moved, accounting=asdict(counts))
