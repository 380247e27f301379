"""Picks as splits: ``pick:NAME`` and ``unpicked:NAME`` wherever a split is named."""

from __future__ import annotations

from collections.abc import Sequence

from mm_embed_kernels import sql
from mm_embed_kernels.errors import UserError
from mm_resources.catalog import Catalog
from mm_resources.registry.pins import Pin

# Prefix -> operator of SQL.
_PREFIXES = {"pick:": "IN", "unpicked:": "NOT IN"}


def pick_of(split: str) -> str:
    """Return the name of the pick that a split is of; "" for one of the spec, whose names have no colon."""
    return next(
        (split.removeprefix(prefix) for prefix in _PREFIXES if split.startswith(prefix)),
        "",
    )


def split_condition(catalog: Catalog, pins: Sequence[Pin], split: str) -> str:
    """Return SQL over the feature columns that chooses the rows of a split, or of a pick.

    Raises:
        UserError: for a pick that does not exist, or one beside several modalities: its samples are of one.
    """
    name = pick_of(split)
    if not name:
        return f"split = {sql.literal(split)}"
    if len(pins) > 1:
        raise UserError(f"split {split}: a pick is of one modality; name that one alone")
    operator = next(each for prefix, each in _PREFIXES.items() if split.startswith(prefix))
    samples = catalog.picks.read(pins[0].cell, name)["sample_id"].to_pylist()
    return f"sample_id {operator} ({sql.literals(samples)})"
