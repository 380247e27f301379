"""Cost of a cell, and its savings by rules, deduplication and cache, from ledger and price table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
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
from mm_resources.registry.pins import Pin
from mm_resources.storage import dataset_versions
from mm_resources.tables.stage_tables import StageTables

# Stages that a dropped sample does not reach.
AFTER_CURATION = ("segments", "embeddings")
_DECISIONS = pa.schema([("kept", pa.bool_()), ("rule", pa.string())])
_DROPPED = "SELECT rule, count(*) AS n FROM rows WHERE NOT kept GROUP BY rule ORDER BY rule"
_LOCATIONS = pa.schema([("size", pa.int64()), ("refcount", pa.int64()), ("path", pa.string())])
# Blobs that stay in their source take no space in the store.
_BLOBS = """
SELECT coalesce(sum(size) FILTER (path NOT LIKE 'source:%'), 0)::BIGINT AS bytes, count(*) AS blobs,
       coalesce(sum(refcount), 0)::BIGINT AS samples FROM rows
"""


@dataclass(frozen=True)
class Savings:
    """Work that was avoided, at the mean cost of a row in this store.

    Attributes:
        count: samples (for rules and deduplication) or kernel rows (for the cache).
        seconds: wall seconds in kernels.
        price: price of their CPU and GPU seconds.
    """

    count: int
    seconds: float
    price: float

    @staticmethod
    def at_rate(count: int, rate: Rate, prices: Prices) -> Savings:
        """Return the savings of `count` rows at the rate of one."""
        return Savings(
            count, count * rate.seconds, count * prices.of(Usage(rate.cpu_seconds, rate.gpu_seconds))
        )

    @staticmethod
    def sum(parts: Iterable[Savings]) -> Savings:
        """Return the sum of savings."""
        parts = list(parts)
        return Savings(
            *(sum(getattr(part, name) for part in parts) for name in ("count", "seconds", "price"))
        )


@dataclass(frozen=True)
class CellCost:
    """The cost of a cell over all its runs.

    Attributes:
        modality: modality of the cell.
        stages: runs, samples, usage and price of each stage.
        runs: the same for each stage of each run.
        published: samples of the current pin; 0 before the first publish.
        price: price of all stages.
        per_1000_published: price of 1,000 published samples; None where nothing is published.
        stored_bytes: size of blobs (shared ones too), stage tables and feature tables.
        stored_month: price of storing them for a month.
        per_kept_sample: price of the stages after curation for one sample.
        by_rule: savings of each rule: the stages after curation for the samples that it drops.
        deduplication: savings of those rules that compare samples, a part of `by_rule`.
        same_bytes: savings of probing equal bytes once.
        cache: by kernel, savings of the rows that an earlier run computed.
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
    by_rule: dict[str, Savings]
    deduplication: Savings
    same_bytes: Savings
    cache: dict[str, Savings]

    @property
    def savings(self) -> dict[str, Savings]:
        """Savings by their cause; deduplication stands apart from the rules that drop for other reasons."""
        rules = {f"rule {rule}": part for rule, part in self.by_rule.items() if not _compares(rule)}
        copies = Savings.sum([self.deduplication, self.same_bytes])
        return {**rules, "deduplication": copies, "cache": Savings.sum(self.cache.values())}


def cell_cost(catalog: Catalog, cell: Cell, prices: Prices, published: int | None = None) -> CellCost:
    """Return the cost of a cell, from its current tables and the ledger.

    Args:
        published: number of published samples; by default that of the pin.
    """
    ledger, tables, pin = catalog.ledger, catalog.tables, catalog.registry.pins.get(cell)
    if published is None:
        published = pin.accounting["published"] if pin else 0
    works, kernels, rates = ledger.stage_work(cell), ledger.kernels(cell), ledger.rates()
    (blobs,) = _fetch(_BLOBS, tables, cell, "content_blobs", _LOCATIONS)
    dropped = {row["rule"]: row["n"] for row in _fetch(_DROPPED, tables, cell, "curated_samples", _DECISIONS)}
    curated = tables.meta("curated_samples", cell)
    sample = _sample_rate(kernels, rates, curated.samples if curated else None)
    probe = next((_rate(row, rates) for row in kernels if row["kernel"] == "probe"), Rate())
    by_rule = {rule: Savings.at_rate(count, sample, prices) for rule, count in dropped.items()}
    price = sum(prices.of(work.usage) for work in works)
    stored = blobs["bytes"] + _table_bytes(catalog, cell, pin)
    return CellCost(
        modality=cell.modality,
        stages=_by_stage(works, prices),
        runs=[_figures(work, prices) for work in works],
        published=published,
        price=price,
        per_1000_published=1000 * price / published if published else None,
        stored_bytes=stored,
        stored_month=prices.of_storage(stored),
        per_kept_sample=Savings.at_rate(1, sample, prices).price,
        by_rule=by_rule,
        deduplication=Savings.sum(part for rule, part in by_rule.items() if _compares(rule)),
        same_bytes=Savings.at_rate(blobs["samples"] - blobs["blobs"], probe, prices),
        cache={
            row["kernel"]: Savings.at_rate(row["reused"], _rate(row, rates), prices)
            for row in kernels
            if row["reused"]
        },
    )


def _rate(kernel: dict[str, Any], rates: Mapping[str, Rate]) -> Rate:
    return rates.get(kernel["fingerprint"], Rate())


def _sample_rate(kernels: list[dict[str, Any]], rates: Mapping[str, Rate], kept: int | None) -> Rate:
    """Return the rate of all stages after curation for one of the kept samples."""
    if not kept:
        return Rate()
    after = [row for row in kernels if row["stage"] in AFTER_CURATION and row["asked"]]
    return Rate.sum(_rate(row, rates).times(row["asked"] / kept) for row in after)


def _table_bytes(catalog: Catalog, cell: Cell, pin: Pin | None) -> int:
    """Return the size of a cell's stage tables and published feature tables."""
    refs = filter(None, (catalog.tables.state(stage, cell) for stage in STAGES))
    stages = sum(dataset_versions.data_bytes(catalog.store.uri(ref.table), ref.lance_version) for ref in refs)
    features = sum(
        dataset_versions.data_bytes(catalog.features.uri(item.table), item.lance_version)
        for item in (pin.tables if pin else [])
    )
    return stages + features


def _figures(work: Work, prices: Prices) -> dict[str, Any]:
    """Return the figures of a run's stage and their price, flat."""
    return {
        **{name: value for name, value in vars(work).items() if name != "usage"},
        **vars(work.usage),
        "price": prices.of(work.usage),
    }


def _by_stage(works: list[Work], prices: Prices) -> list[dict[str, Any]]:
    """Return the sums over all runs of each stage; sample counts are those of the last run."""
    stages = []
    for stage in STAGES:
        mine = [work for work in works if work.stage == stage]
        if not mine:
            continue
        usage = sum((work.usage for work in mine), Usage())
        stages.append(
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
    return stages


def _compares(rule: str) -> bool:
    """Return whether a rule drops duplicates; for a rule that is not installed, False."""
    known = rules().get(rule)
    return known is not None and known.groups is not Rule.groups


def _fetch(
    statement: str, tables: StageTables, cell: Cell, asset: str, schema: pa.Schema
) -> list[dict[str, Any]]:
    """Run a statement over columns of a stage's ``rows``; a stage without a table has none."""
    rows = tables.read_or_empty(asset, cell, schema)
    result: list[dict[str, Any]] = sql.fetch(statement, rows=rows).to_pylist()
    return result
