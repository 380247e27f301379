"""What a changed curation profile would move, out of what is stored: nothing is fetched, decoded or embedded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import pyarrow as pa

from mm_assets.curation.contamination import connect_comparisons
from mm_embed_kernels.curation.decisions import curate
from mm_embed_kernels.errors import UserError
from mm_embed_kernels.kernels.base import Kernel
from mm_embed_kernels.kernels.segment import SegmentKernel
from mm_embed_kernels.modalities import get
from mm_embed_kernels.rules import Rule, rule_set
from mm_embed_kernels.sandbox.sandbox import Limits
from mm_embed_kernels.spec.dataset_spec import DatasetSpec
from mm_resources.catalog import Catalog
from mm_resources.cell import Cell
from mm_resources.costs.prices import Prices
from mm_resources.ledger.ledger import Rate
from mm_resources.metering import Usage
from mm_resources.resources import EmbedderResource


@dataclass(frozen=True)
class Move:
    """What becomes of samples by one rule.

    Attributes:
        failing_now, failing_then: samples that fail the rule, whether it drops or flags.
        kept_to_dropped: samples that were kept and that this rule would be the first to drop.
        dropped_to_kept: samples that this rule was the first to drop and that would be kept.
    """

    rule: str
    failing_now: int
    failing_then: int
    kept_to_dropped: int
    dropped_to_kept: int


@dataclass(frozen=True)
class WhatIf:
    """What would become of a cell.

    Attributes:
        samples: validated samples.
        kept_now, kept_then: of them.
        moves: rules by which something would change.
        seconds: what segmenting and embedding would take more (or less, below 0), were none of it computed
            yet.
        price: of its CPU and GPU seconds, in the currency of the price table.
    """

    modality: str
    samples: int
    kept_now: int
    kept_then: int
    moves: list[Move]
    seconds: float
    price: float


def what_if(
    catalog: Catalog,
    cell: Cell,
    changes: Mapping[str, Mapping[str, Any]],
    embedder: EmbedderResource,
    prices: Prices,
) -> WhatIf:
    """Judge the stored validated samples of a cell by the spec's profile and by the changed one.

    What a parent version has placed is left out of both: it drops newcomers between two splits, by either
        profile.

    Raises:
        UserError: where nothing is validated yet, or was by an older version.
    """
    spec = catalog.registry.spec(cell.dataset, cell.version)
    settings = spec.curation.rules
    changed = {**settings, **{rule: {**settings.get(rule, {}), **values} for rule, values in changes.items()}}
    now, then = (rule_set(cell.modality, chosen) for chosen in (settings, changed))
    for chosen in (now, then):
        connect_comparisons(catalog, cell, chosen)
    read = partial(catalog.tables.read, "validated_samples", cell)
    _require_columns(read, cell, [*now, *then])
    samples, kept, counts = 0, Counter[str](), Counter[tuple[str, str]]()
    pairs = zip(*(curate(read, chosen, spec.name, spec.splits) for chosen in (now, then)), strict=True)
    for before, after in pairs:
        samples += before.num_rows
        kept.update({"now": sum(before["kept"].to_pylist()), "then": sum(after["kept"].to_pylist())})
        for name, table in (("failing_now", before), ("failing_then", after)):
            counts.update(
                (item["rule"], name)
                for decisions in table["rules"].to_pylist()
                for item in decisions
                if not item["passed"]
            )
        for old, new in zip(before["rule"].to_pylist(), after["rule"].to_pylist(), strict=True):
            if old is None and new is not None:
                counts[new, "kept_to_dropped"] += 1
            elif old is not None and new is None:
                counts[old, "dropped_to_kept"] += 1
    moves = [_move(name, counts) for name in sorted({rule.name for rule in [*now, *then]})]
    moves = [
        move
        for move in moves
        if move.failing_now != move.failing_then or move.kept_to_dropped or move.dropped_to_kept
    ]
    more = _per_sample(catalog, spec, cell, embedder, kept["now"]).times(kept["then"] - kept["now"])
    price = prices.of(Usage(more.cpu_seconds, more.gpu_seconds))
    return WhatIf(cell.modality, samples, kept["now"], kept["then"], moves, round(more.seconds, 3), price)


def _move(rule: str, counts: Counter[tuple[str, str]]) -> Move:
    return Move(
        rule,
        **{
            name: counts[rule, name]
            for name in ("failing_now", "failing_then", "kept_to_dropped", "dropped_to_kept")
        },
    )


def _require_columns(read: Any, cell: Cell, chosen: list[Rule]) -> None:
    again = f"run `mm backfill {cell.dataset_version} --modality {cell.modality}`"
    try:
        found: pa.RecordBatchReader = read(None)
    except LookupError:
        raise UserError(f"no sample of {cell.partition_key} is validated yet; {again}") from None
    missing = sorted({column for rule in chosen for column in rule.columns} - set(found.schema.names))
    if missing:
        raise UserError(
            f"{cell.partition_key} was probed by an older version, without {', '.join(missing)}; {again}"
        )


def _per_sample(
    catalog: Catalog, spec: DatasetSpec, cell: Cell, embedder: EmbedderResource, kept: int
) -> Rate:
    """What a kept sample costs from here on: the ledger's rates where it has them, and one segment where none was cut yet."""
    blobs, rates, limits = catalog.blobs, catalog.ledger.rates(), Limits()
    cut = catalog.tables.meta("segments", cell)
    segments = cut.rows / kept if cut and kept else 1.0

    def rate(kernel: Kernel) -> Rate:
        return rates.get(kernel.fingerprint, Rate.guess(kernel))

    per_segment: list[Kernel] = [
        embedder.kernel(blobs, limits, made) for made in embedder.open_all(spec.embedders.get(cell.modality))
    ]
    if name := spec.transcribe.get(cell.modality):
        per_segment.append(embedder.transcribe_kernel(name, blobs, limits))
    return Rate.sum(
        [
            rate(SegmentKernel(get(cell.modality), blobs)),
            *(rate(kernel).times(segments) for kernel in per_segment),
        ]
    )
