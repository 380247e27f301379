"""Files of the registry that are cut or damaged."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

from mm_embed_kernels.errors import UserError
from mm_resources.registry.registry import Registry
from mm_resources.storage.layout import read_layout


def describe_damage(registry: Registry) -> list[str]:
    """Return a line for each file of the registry that cannot be read, with what to do."""
    lines: list[str] = []
    reads: list[Callable[[], object]] = [partial(_check_layout, registry), *_reads(registry, lines)]
    for read in reads:
        try:
            read()
        except UserError as error:
            lines.append(str(error))
    return lines


def _check_layout(registry: Registry) -> None:
    if registry.datasets():
        try:
            read_layout(registry.store)
        except FileNotFoundError:
            return  # a store of an earlier layout, which `check_layout` has judged


def _reads(registry: Registry, lines: list[str]) -> Iterator[Callable[[], object]]:
    """Yield the read of each pin and each move of an alias; add the specs that cannot be read to `lines`."""
    for cell in registry.all_cells(problems=lines):
        for number in registry.pins.numbers(cell):
            yield partial(registry.pins.get, cell, number)
    for dataset in registry.store.names("registry/aliases"):
        for alias in registry.store.names(f"registry/aliases/{dataset}"):
            for number in registry.aliases.numbers(dataset, alias):
                yield partial(registry.aliases.get, dataset, alias, number)
