"""`mm datasets`."""

from __future__ import annotations

from typing import Any

from mm_assets.cli.options import Json
from mm_assets.cli.output import print_json, print_table, say
from mm_embed_kernels.errors import UserError


def datasets(json: Json = False) -> None:
    """List the registered dataset versions, with the number of features published of each."""
    from mm_resources.catalog import Catalog

    registry = Catalog.open().registry
    rows: list[dict[str, Any]] = []
    for name in registry.datasets():
        try:
            published = {pin.modality: pin.accounting["features"] for pin in registry.latest_pins(name)}
        except UserError as error:
            rows.append({"dataset_version": name, "published": str(error)})
            continue
        rows.append({"dataset_version": name, "published": published})
    if json:
        print_json(rows)
    elif rows:
        print_table("datasets (features published by modality)", rows)
    else:
        say("no dataset is registered; start with: mm init FOLDER")
