"""Vectors for rules: those that the parent version has published of the cell's modality."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa

from mm_embed_kernels.contracts.features import vectors_of
from mm_embed_kernels.rules import Rule
from mm_embed_kernels.rules.vectors import VectorRule
from mm_resources.catalog import Catalog
from mm_resources.cell import Cell
from mm_resources.registry.pins import Pin


def vector_inputs(catalog: Catalog, cell: Cell, rules: Sequence[Rule]) -> dict[str, Any]:
    """Return what names the vectors that a cell's rules read, as an input of its stage; {} for none."""
    pin = _parent_pin(catalog, cell, rules)
    if pin is None:
        return {}
    return {"vectors": pin.data_version}


def connect_vectors(catalog: Catalog, cell: Cell, rules: Sequence[Rule]) -> None:
    """Give the rules that read vectors those of the parent version; without it they measure nothing."""
    pin = _parent_pin(catalog, cell, rules)
    if pin is None:
        return

    def read() -> Iterator[tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]]:
        for batch in catalog.features.rows(pin, ["content_hash", "vector"]):
            hashes = np.asarray(batch["content_hash"].to_pylist(), "S64")
            yield hashes, vectors_of(pa.Table.from_batches([batch]))

    for rule in rules:
        if isinstance(rule, VectorRule):
            rule.set_vectors(read)


def _parent_pin(catalog: Catalog, cell: Cell, rules: Sequence[Rule]) -> Pin | None:
    if not any(isinstance(rule, VectorRule) for rule in rules):
        return None
    parent = catalog.registry.spec(cell.dataset, cell.version).parent
    return catalog.registry.pins.get(replace(cell, version=parent)) if parent is not None else None
