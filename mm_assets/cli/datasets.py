"""`mm datasets`."""

from __future__ import annotations

from itertools import groupby
from typing import Any

from mm_assets.cli.options import Json
from mm_assets.cli.output import print_json, print_table, say


def datasets(json: Json = False) -> None:
    """List the registered dataset versions, with the number of features published of each."""
    from mm_resources.catalog import Catalog
    from mm_resources.registry.pins import Pin

    registry = Catalog.open().registry
    rows: list[dict[str, Any]] = []
    for name, cells in groupby(registry.published(), lambda each: each[0]):
        pins = [pin for _, _, pin in cells]
        # A file that cannot be read costs its version alone.
        problem = next((str(pin) for pin in pins if isinstance(pin, Exception)), None)
        published = {pin.modality: pin.accounting["features"] for pin in pins if isinstance(pin, Pin)}
        rows.append({"dataset_version": name, "published": problem or published})
    if json:
        print_json(rows)
    elif rows:
        print_table("datasets (features published by modality)", rows)
    else:
        say("no dataset is registered; start with: mm init FOLDER")
