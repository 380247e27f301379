"""`mm datasets`."""

from __future__ import annotations

from mm_assets.cli.options import Json
from mm_assets.cli.output import print_json, print_table


def datasets(json: Json = False) -> None:
    """List the registered dataset versions, with the number of features published of each."""
    from mm_resources.catalog import Catalog

    registry = Catalog.open().registry
    rows = []
    for name in registry.datasets():
        published = {pin.modality: pin.accounting["features"] for pin in registry.latest_pins(name)}
        rows.append({"dataset_version": name, "published": published})
    if json:
        print_json(rows)
    elif rows:
        print_table("datasets (features published by modality)", rows)
    else:
        print("no dataset is registered; start with: mm init FOLDER")
