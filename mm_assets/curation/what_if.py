"""Compare the decisions of a cell's profile with those of a changed one, over stored samples."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import pyarrow as pa

from mm_assets.curation.contamination import connect_comparisons
from mm_assets.curation.parent_vectors import connect_vectors
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
from mm_resources.tables.stage_tables import NotMaterialized


@dataclass(frozen=True)
class Move:
    """The samples whose decision changes by one rule.

    Attributes:
        failing_now, failing_then: samples that fail the rule, whether it drops or flags.
        kept_to_dropped: kept samples that this rule would be the first to drop.
        dropped_to_kept: samples that this rule is the first to drop now and that would be kept.
    """

    rule: str
    failing_now: int
    failing_then: int
    kept_to_dropped: int
    dropped_to_kept: int

    @property
    def is_change(self) -> bool:
        """True when the rule fails another number of samples, or changes a decision."""
        return self.failing_now != self.failing_then or bool(self.kept_to_dropped or self.dropped_to_kept)


# The counts of `Move`, in its order.
_COUNTS = ("failing_now", "failing_then", "kept_to_dropped", "dropped_to_kept")


@dataclass(frozen=True)
class WhatIf:
    """The decisions of a cell by its profile (now) and by the changed one (then).

    Attributes:
        samples: validated samples.
        kept_now, kept_then: of them.
        moves: rules by which a decision would change.
        seconds: additional time to segment and embed the kept samples, if none were cached; below 0 for fewer
            samples.
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
    """Judge the stored validated samples of a cell by the spec's profile and by a changed one.

    The splits of a parent version are left out of both: they drop newcomers between two splits by either
    profile.

    Args:
        changes: rule -> parameter -> value, on top of the spec's `curation.rules`.

    Raises:
        UserError: when nothing is validated yet, or it was probed by an older version.
    """
    spec = catalog.registry.spec(cell.dataset, cell.version)
    settings = spec.curation.rules
    changed = {**settings, **{rule: {**settings.get(rule, {}), **values} for rule, values in changes.items()}}
    now, then = (rule_set(cell.modality, chosen) for chosen in (settings, changed))
    for chosen in (now, then):
        connect_comparisons(catalog, cell, chosen)
        connect_vectors(catalog, cell, chosen)
    read = partial(catalog.tables.read, "validated_samples", cell)
    _require_columns(read, cell, [*now, *then])
    samples, kept, counts = 0, Counter[str](), Counter[tuple[str, str]]()
    pairs = zip(*(curate(read, chosen, spec.name, spec.splits) for chosen in (now, then)), strict=True)
    for before, after in pairs:
        samples += before.num_rows
        kept.update({"now": sum(before["kept"].to_pylist()), "then": sum(after["kept"].to_pylist())})
        counts.update(_changes(before, after))
    moves = [
        move
        for name in sorted({rule.name for rule in [*now, *then]})
        if (move := Move(name, *(counts[name, count] for count in _COUNTS))).is_change
    ]
    more = _work_per_sample(catalog, spec, cell, embedder, kept["now"]).times(kept["then"] - kept["now"])
    price = prices.of(Usage(more.cpu_seconds, more.gpu_seconds))
    return WhatIf(cell.modality, samples, kept["now"], kept["then"], moves, round(more.seconds, 3), price)


def _changes(before: pa.Table, after: pa.Table) -> Iterator[tuple[str, str]]:
    """Yield (rule, count of `Move`) for each sample of two tables of decisions that adds to it."""
    for count, table in (("failing_now", before), ("failing_then", after)):
        for decisions in table["rules"].to_pylist():
            yield from ((item["rule"], count) for item in decisions if not item["passed"])
    for old, new in zip(before["rule"].to_pylist(), after["rule"].to_pylist(), strict=True):
        if old is None and new is not None:
            yield new, "kept_to_dropped"
        elif old is not None and new is None:
            yield old, "dropped_to_kept"


def _require_columns(read: Any, cell: Cell, rules: list[Rule]) -> None:
    """Check that the validated samples have the columns that the rules read.

    Raises:
        UserError: when there are none, or they lack a column.
    """
    advice = f"run `mm backfill {cell.dataset_version} --modality {cell.modality}`"
    try:
        names = read(None).schema.names
    except NotMaterialized:
        raise UserError(f"no sample of {cell.partition_key} is validated yet; {advice}") from None
    missing = sorted({column for rule in rules for column in rule.columns} - set(names))
    if missing:
        raise UserError(
            f"{cell.partition_key} was probed by an older version, without {', '.join(missing)}; {advice}"
        )


def _work_per_sample(
    catalog: Catalog, spec: DatasetSpec, cell: Cell, embedder: EmbedderResource, kept: int
) -> Rate:
    """Return the work of segmenting and embedding one kept sample.

    By the ledger's rates where it has them; by one segment for each sample where none was cut yet.
    """
    blobs, rates, limits = catalog.blobs, catalog.ledger.rates(), Limits()
    cut = catalog.tables.meta("segments", cell)
    segments = cut.rows / kept if cut and kept else 1.0

    def rate(kernel: Kernel) -> Rate:
        return rates.get(kernel.fingerprint, Rate.of_kernel(kernel))

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
