"""Removal of a version of which nothing is published, so that its name is free again."""

from __future__ import annotations

from mm_embed_kernels.contracts.pipeline import FAILURE_STAGES, STAGES
from mm_embed_kernels.errors import UserError
from mm_embed_kernels.identity import ALIASES
from mm_resources.cell import Cell
from mm_resources.registry.registrations import Registration, record_name
from mm_resources.registry.registry import Registry
from mm_resources.storage.store import remove_tree
from mm_resources.tables.stage_refs import StageRef, StageRefs
from mm_resources.tables.stage_tables import is_own_table


def unregister(registry: Registry, dataset_version: str) -> list[Cell]:
    """Remove a version of which nothing is published: its spec, listings, stage tables and failures.

    Computed results stay in the cache, and blobs until `mm gc`. The spec goes last: a removal that is cut off
    leaves a version that lists its sources anew, and can be removed again.

    Returns:
        The cells that the version had.

    Raises:
        UserError: when the version is not registered, or something depends on it.
    """
    if dataset_version.partition("@")[2].lower() in ALIASES:
        raise UserError(f"{dataset_version} is an alias; name a version")
    cells = registry.cells(dataset_version)
    dataset, version = cells[0].dataset, cells[0].version
    published = [cell.modality for cell in cells if registry.pins.numbers(cell)]
    if published:
        raise UserError(
            f"{', '.join(published)} of {dataset_version} is published, and a published version stays; "
            "register a changed spec under a new version"
        )
    followers = [
        name
        for name, found in registry.registrations.read_all(dataset)
        if isinstance(found, Registration) and found.spec.parent == version
    ]
    if followers:
        raise UserError(f"{', '.join(followers)} follows {dataset_version}; unregister that one first")
    # A table of this version may hold rows of others, which were written on top of it.
    shared = {
        ref.table
        for cell, _, _, ref in StageRefs(registry.store).every()
        if isinstance(ref, StageRef) and cell not in cells
    }
    for cell in cells:
        StageRefs(registry.store).remove_cell(cell)
        for stage in STAGES:
            for name in list(registry.store.tables(f"stages/{stage}/{dataset}/{version}")):
                if name not in shared and is_own_table(name, stage, cell):
                    remove_tree(registry.store, name)
        for stage in dict.fromkeys((*STAGES, *FAILURE_STAGES)):
            remove_tree(registry.store, f"failures/{stage}/{cell.path}.lance")
    remove_tree(registry.store, f"registry/listings/{dataset}/{version}")
    registry.store.remove(record_name(dataset, version))
    return cells
