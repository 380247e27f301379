"""What the rule `contaminated` compares a cell with: the validated samples of other datasets."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from mm_embed_kernels.errors import UserError
from mm_embed_kernels.rules import Rule
from mm_embed_kernels.rules.contaminated import Contaminated
from mm_embed_kernels.rules.duplicates import NearDuplicateRule
from mm_resources.catalog import Catalog
from mm_resources.cell import Cell
from mm_resources.registry.registry import Registry


def other_cells(registry: Registry, cell: Cell, rules: Sequence[Rule]) -> dict[str, Cell]:
    """The cells that a cell is compared with, by their dataset version; a version without this modality has none.

    Raises:
        UserError: for a dataset version that is not registered, or is one of the cell's own dataset.
    """
    found: dict[str, Cell] = {}
    for name in [name for rule in rules if isinstance(rule, Contaminated) for name in rule.datasets]:
        for other in registry.cells(name):
            if other.dataset == cell.dataset:
                raise UserError(
                    f"curation.rules.contaminated.against: {name} is of the dataset itself, all of whose samples are in it"
                )
            if other.modality == cell.modality:
                found[name] = other
    return found


def look_into_others(catalog: Catalog, cell: Cell, rules: Sequence[Rule]) -> dict[str, str]:
    """Let the rule `contaminated`, if it is among the rules, read what it compares with; the data versions of that.

    Raises:
        UserError: where that is not validated yet, or was probed by an older version, beside what `other_cells` raises.
    """
    tables = catalog.tables
    others, versions = other_cells(catalog.registry, cell, rules), {}
    near = next((rule for rule in rules if isinstance(rule, NearDuplicateRule)), None)
    for name, other in others.items():
        again = f"run `mm backfill {other.dataset_version} --modality {other.modality}`"
        meta = tables.meta("validated_samples", other)
        if meta is None:
            raise UserError(
                f"{cell.partition_key} is to be compared with {name}, of which nothing is validated yet; {again}"
            )
        missing = set(near.columns if near else ()) - set(
            tables.read("validated_samples", other).schema.names
        )
        if missing:
            raise UserError(
                f"{name} was probed by an older version, without {', '.join(sorted(missing))}; {again}"
            )
        versions[name] = meta.data_version
    for rule in rules:
        if isinstance(rule, Contaminated):
            rule.compare_with(
                {name: partial(tables.read, "validated_samples", other) for name, other in others.items()},
                near,
            )
    return versions
