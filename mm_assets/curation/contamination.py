"""Connect the rule `contaminated` to the validated samples of the datasets that it compares a cell with."""

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


def compared_cells(registry: Registry, cell: Cell, rules: Sequence[Rule]) -> dict[str, Cell]:
    """Return the cells that a cell is compared with, by dataset version, as far as they have its modality.

    Raises:
        UserError: for a dataset version that is not registered, or is one of the cell's own dataset.
    """
    compared: dict[str, Cell] = {}
    for name in [name for rule in rules if isinstance(rule, Contaminated) for name in rule.datasets]:
        for other in registry.cells(name):
            if other.dataset == cell.dataset:
                raise UserError(
                    f"curation.rules.contaminated.against: {name} belongs to the cell's own dataset; "
                    "`against` must list other datasets"
                )
            if other.modality == cell.modality:
                compared[name] = other
    return compared


def compared_versions(catalog: Catalog, cell: Cell, rules: Sequence[Rule]) -> dict[str, str]:
    """Return the data versions of the validated samples that a cell is compared with, by dataset version.

    Raises:
        UserError: for a dataset that is not validated yet, or was probed by an older version, and as
            `compared_cells` does.
    """
    versions: dict[str, str] = {}
    near = _near_duplicate_rule(rules)
    for name, other in compared_cells(catalog.registry, cell, rules).items():
        advice = f"run `mm backfill {other.dataset_version} --modality {other.modality}`"
        meta = catalog.tables.meta("validated_samples", other)
        if meta is None:
            raise UserError(
                f"{cell.partition_key} is to be compared with {name}, "
                f"of which nothing is validated yet; {advice}"
            )
        columns = catalog.tables.read("validated_samples", other).schema.names
        missing = set(near.columns if near else ()) - set(columns)
        if missing:
            raise UserError(
                f"{name} was probed by an older version, without {', '.join(sorted(missing))}; {advice}"
            )
        versions[name] = meta.data_version
    return versions


def connect_comparisons(catalog: Catalog, cell: Cell, rules: Sequence[Rule]) -> None:
    """Give the rule `contaminated`, where the rules contain it, its readers of the other datasets.

    Raises:
        UserError: as `compared_versions` does, and for a table of another dataset that is damaged.
    """
    compared_versions(catalog, cell, rules)
    others, tables = compared_cells(catalog.registry, cell, rules), catalog.tables
    for other in others.values():
        tables.require_intact("validated_samples", other, tables.dataset("validated_samples", other))
    readers = {name: partial(tables.read, "validated_samples", other) for name, other in others.items()}
    for rule in rules:
        if isinstance(rule, Contaminated):
            rule.compare_with(readers, _near_duplicate_rule(rules))


def _near_duplicate_rule(rules: Sequence[Rule]) -> NearDuplicateRule | None:
    return next((rule for rule in rules if isinstance(rule, NearDuplicateRule)), None)
