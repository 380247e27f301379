"""`mm init`, `mm register`, `mm datasets`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from mm_assets.cli.init import init
from mm_assets.cli.options import Json
from mm_assets.cli.output import print_json, print_table
from mm_assets.cli.register import register

if TYPE_CHECKING:
    pass


def add_to(app: typer.Typer) -> None:
    app.command()(init)
    app.command()(register)
    app.command()(datasets)


def datasets(json: Json = False) -> None:
    """List the registered dataset versions and what is published of them."""
    from mm_resources.registry.registry import Registry
    from mm_resources.settings import Settings
    from mm_resources.storage.store import Store

    registry = Registry(Store(Settings.from_environment().store))
    rows = []
    for name in registry.datasets():
        pins = {cell.modality: registry.pin(cell) for cell in registry.cells(name)}
        rows.append(
            {
                "dataset_version": name,
                "published": {modality: pin.accounting["features"] for modality, pin in pins.items() if pin},
            }
        )
    if json:
        print_json(rows)
    elif rows:
        print_table("datasets (features published by modality)", rows)
    else:
        print("no dataset is registered; start with: mm init FOLDER")
