"""Files of the registry that are cut or damaged."""

from __future__ import annotations

from collections.abc import Iterator

from mm_embed_kernels.errors import UserError
from mm_resources.blobs.receipts import Receipts
from mm_resources.cell import Cell
from mm_resources.registry.registry import Registry, declared_cells
from mm_resources.storage.layout import read_layout
from mm_resources.tables.stage_refs import StageRefs


def describe_damage(registry: Registry, fresh: bool = True) -> list[str]:
    """Return a line for each file of the registry that cannot be read, with what to do.

    Args:
        fresh: whether to read each file itself, in search of damage; without, what is known of files that
            have not changed since they were read is believed.
    """
    return [str(error) for error in _errors(registry, fresh)]


def _errors(registry: Registry, fresh: bool) -> Iterator[Exception]:
    cells: list[Cell] = []
    versions = list(registry.registrations.read_all(fresh=fresh))
    if versions:
        try:
            read_layout(registry.store)
        except FileNotFoundError:
            pass  # a store of an earlier layout, which `check_layout` has judged
        except UserError as error:
            yield error
    for _, found in versions:
        if isinstance(found, Exception):
            yield found
        else:
            cells += declared_cells(found.spec)
    for _, _, pin in registry.pins.every(cells, fresh):
        if isinstance(pin, Exception):
            yield pin
    for _, _, _, ref in StageRefs(registry.store).every(fresh):
        if isinstance(ref, Exception):
            yield ref
    yield from registry.aliases.check_all(fresh)
    yield from Receipts(registry.store).damage()
