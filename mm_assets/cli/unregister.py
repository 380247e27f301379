"""`mm unregister`."""

from __future__ import annotations

from typing import Annotated

import typer

from mm_assets.cli.options import Json, check_dataset_version
from mm_assets.cli.output import print_json, say
from mm_embed_kernels.errors import UserError


def unregister(
    dataset_version: Annotated[
        str,
        typer.Argument(
            metavar="DATASET@VERSION", callback=check_dataset_version, help="version that published nothing"
        ),
    ],
    json: Json = False,
) -> None:
    """Remove a version that has published nothing, so that its name can be registered again."""
    from mm_assets.cells.dataset_reports import remove_assets
    from mm_assets.cells.partitions import DATASET_VERSION
    from mm_assets.operations.dagster_home import active_runs, open_instance
    from mm_resources.catalog import Catalog
    from mm_resources.registry.unregistration import unregister as remove
    from mm_resources.settings import Settings

    catalog = Catalog.open()
    registry = catalog.registry
    instance = open_instance(Settings.from_environment())
    for cell in registry.cells(dataset_version):
        if busy := active_runs(instance, cell.partition_key):
            raise UserError(f"{busy} is processing {cell.partition_key}; wait for it to end, then repeat")
    cells = remove(registry, dataset_version)
    if dataset_version in instance.get_dynamic_partitions(DATASET_VERSION):
        instance.delete_dynamic_partition(DATASET_VERSION, dataset_version)
    remove_assets(instance, catalog, dataset_version.partition("@")[0])
    if json:
        modalities = [cell.modality for cell in cells]
        print_json({"dataset_version": dataset_version, "modalities": modalities})
        return
    say(f"{dataset_version} is unregistered; register its spec again: mm register SPEC")
