"""What a cell cost, and what its rules, deduplication and the cache have spared, by the ledger's figures and a price table."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from mm_embed_kernels import sql
from mm_embed_kernels.contracts.pipeline import STAGES
from mm_embed_kernels.rules import Rule, rules
from mm_resources.catalog import Catalog
from mm_resources.cell import Cell
from mm_resources.costs.prices import Prices
from mm_resources.ledger.ledger import Rate, Work
from mm_resources.metering import Usage
from mm_resources.storage import lance_datasets
from mm_resources.tables.stage_tables import StageTables

# What a sample that a rule drops would have gone through.
AFTER_CURATION = ("segments", "embeddings")
_DECISIONS = pa.schema([("kept", pa.bool_()), ("rule", pa.string())])
_DROPPED = "SELECT rule, count(*) AS n FROM rows WHERE NOT kept GROUP BY rule ORDER BY rule"
_PLACES = pa.schema([("size", pa.int64()), ("refcount", pa.int64()), ("path", pa.string())])
# Blobs that stay in their source are not stored here.
_BLOBS = """
SELECT coalesce(sum(size) FILTER (path NOT LIKE 'source:%'), 0)::BIGINT AS bytes, count(*) AS blobs,
       coalesce(sum(refcount), 0)::BIGINT AS samples FROM rows
"""


@dataclass(frozen=True)
class Avoided:
    """Work that was not done, by what a row of it takes in this store.

    Attributes:
        count: samples (of rules and deduplication) or kernel rows (of the cache) that it was spared.
        seconds: wall seconds in kernels; price: of their CPU and GPU seconds.
    """

    count: int
    seconds: float
    price: float

    @staticmethod
    def sum(parts: Iterable[Avoided]) -> Avoided:
        parts = list(parts)
        return Avoided(
            *(sum(getattr(part, name) for part in parts) for name in ("count", "seconds", "price"))
        )


@dataclass(frozen=True)
class CellCost:
    """The cost of a cell over all its runs.

    Attributes:
        stages: what each stage did and took, with its `price`.
        published: samples of the present pin; 0 before the first publish.
        price: of all stages; per_1000_published: of it, None where nothing is published.
        stored_bytes: blobs (shared ones too), stage tables and feature tables; stored_month: price of a month of them.
        per_kept_sample: price of what comes after curation, for one sample.
        by_rule: what each rule's drops have spared of the stages after curation.
        deduplication: of `by_rule`, what rules that compare samples spared; `same_bytes`: probes of samples that share their bytes.
        cache: by kernel, rows that earlier work had computed.
    """

    modality: str
    stages: list[dict[str, Any]]
    runs: list[dict[str, Any]]
    published: int
    price: float
    per_1000_published: float | None
    stored_bytes: int
    stored_month: float
    per_kept_sample: float
    by_rule: dict[str, Avoided]
    deduplication: Avoided
    same_bytes: Avoided
    cache: dict[str, Avoided]

    @property
    def spared(self) -> dict[str, Avoided]:
        """What was spared, by its cause in words; deduplication is told apart from the rules that drop for other reasons."""
        rules = {f"rule {rule}": found for rule, found in self.by_rule.items() if not _compares(rule)}
        copies = Avoided.sum([self.deduplication, self.same_bytes])
        return {**rules, "deduplication": copies, "cache": Avoided.sum(self.cache.values())}


def cell_cost(catalog: Catalog, cell: Cell, prices: Prices, published: int | None = None) -> CellCost:
    """The cost of a cell as its tables and the ledger stand.

    Args:
        published: samples; by default those of its pin.
    """
    ledger, tables, pin = catalog.ledger, catalog.tables, catalog.registry.pin(cell)
    if published is None:
        published = pin.accounting["published"] if pin else 0
    works, kernels, rates = ledger.works(cell), ledger.kernels(cell), ledger.rates()
    (blobs,) = _fetch(_BLOBS, tables, cell, "content_blobs", _PLACES)
    dropped = {row["rule"]: row["n"] for row in _fetch(_DROPPED, tables, cell, "curated_samples", _DECISIONS)}
    kept = tables.meta("curated_samples", cell)

    def rate(row: dict[str, Any]) -> Rate:
        return rates.get(row["fingerprint"], Rate())

    def avoided(count: int, each: Rate) -> Avoided:
        return Avoided(
            count, count * each.seconds, count * prices.of(Usage(each.cpu_seconds, each.gpu_seconds))
        )

    after = [row for row in kernels if row["stage"] in AFTER_CURATION and row["asked"]]
    sample = (
        Rate.sum(rate(row).times(row["asked"] / kept.samples) for row in after)
        if kept and kept.samples
        else Rate()
    )
    probe = next((rate(row) for row in kernels if row["kernel"] == "probe"), Rate())
    by_rule = {rule: avoided(count, sample) for rule, count in dropped.items()}
    price = sum(prices.of(work.usage) for work in works)
    stored = blobs["bytes"] + sum(lance_datasets.data_bytes(tables.uri(stage, cell)) for stage in STAGES)
    if pin is not None:
        stored += sum(
            lance_datasets.data_bytes(catalog.store.uri(f"features/{item.table}.lance"), item.lance_version)
            for item in pin.tables
        )
    return CellCost(
        modality=cell.modality,
        stages=_by_stage(works, prices),
        runs=[_figures(work, prices) for work in works],
        published=published,
        price=price,
        per_1000_published=1000 * price / published if published else None,
        stored_bytes=stored,
        stored_month=prices.stored(stored),
        per_kept_sample=avoided(1, sample).price,
        by_rule=by_rule,
        deduplication=Avoided.sum(spared for rule, spared in by_rule.items() if _compares(rule)),
        same_bytes=avoided(blobs["samples"] - blobs["blobs"], probe),
        cache={row["kernel"]: avoided(row["reused"], rate(row)) for row in kernels if row["reused"]},
    )


def _figures(work: Work, prices: Prices) -> dict[str, Any]:
    return {
        **{name: value for name, value in vars(work).items() if name != "usage"},
        **vars(work.usage),
        "price": prices.of(work.usage),
    }


def _by_stage(works: list[Work], prices: Prices) -> list[dict[str, Any]]:
    """All runs of a stage together; its samples as they were in the last one."""
    found = []
    for stage in STAGES:
        mine = [work for work in works if work.stage == stage]
        if not mine:
            continue
        usage = sum((work.usage for work in mine), Usage())
        found.append(
            {
                "stage": stage,
                "runs": len(mine),
                "samples_in": mine[-1].samples_in,
                "samples_out": mine[-1].samples_out,
                **{
                    name: sum(getattr(work, name) for work in mine if not work.unchanged)
                    for name in ("computed", "reused")
                },
                "seconds": sum(work.seconds for work in mine),
                **vars(usage),
                "peak_bytes": max((work.peak_bytes or 0 for work in mine), default=0),
                "price": prices.of(usage),
            }
        )
    return found


def _compares(rule: str) -> bool:
    """Whether a rule drops duplicates; one of a plug-in that is gone does not, as far as anybody knows."""
    known = rules().get(rule)
    return known is not None and known.groups is not Rule.groups


def _fetch(
    statement: str, tables: StageTables, cell: Cell, asset: str, schema: pa.Schema
) -> list[dict[str, Any]]:
    """A statement over some columns of a stage's ``rows``; a stage that was never materialized has none."""
    try:
        rows = tables.read(asset, cell, schema.names)
    except LookupError:
        rows = pa.RecordBatchReader.from_batches(schema, [])
    found: list[dict[str, Any]] = sql.fetch(statement, rows=rows).to_pylist()
    return found
