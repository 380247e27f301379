"""Propose validation rules that would have rejected the failed samples of a cell before download."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from mm_embed_kernels import sql
from mm_embed_kernels.modalities import Modality, get
from mm_embed_kernels.spec.thresholds import ColumnRule
from mm_embed_kernels.validation.bounds import (
    LISTING_COLUMNS,
    REJECTED,
    bounded_columns,
    extension_sql,
    rejection_reasons,
    validation_bounds,
)
from mm_embed_kernels.validation.suggestions import MIN_SAMPLES, Suggestion, suggest
from mm_resources.catalog import Catalog
from mm_resources.cell import Cell
from mm_resources.storage.spool import TableSpool
from mm_resources.tables.failure_events import FailureFilter

# Without retryable failures, which the samples do not cause, and without samples that a rule or the listing
# rejects before download.
_SAMPLES = f"""
WITH causes AS (
  SELECT sample_id, arg_min(stage || '/' || error_class, "at") AS cause,
         list(DISTINCT fingerprint) AS fingerprints
  FROM failures WHERE NOT retryable AND error_class <> '{REJECTED}' GROUP BY 1
), excluded AS (SELECT DISTINCT sample_id FROM others WHERE sample_id IS NOT NULL)
SELECT coalesce(l.size, r.size) AS size, {extension_sql("l.key")} AS extension,
       l.source, l.label, m.* EXCLUDE (sample_id), c.cause, c.fingerprints
FROM listing l LEFT JOIN raw r USING (sample_id) LEFT JOIN probed m USING (sample_id)
LEFT JOIN causes c USING (sample_id)
WHERE l.error_class IS NULL AND NOT (c.cause IS NULL AND l.sample_id IN (FROM excluded))
"""
_RECURRING = f"""
SELECT cause, count(*) AS samples, list_sort(list_distinct(flatten(list(fingerprints)))) AS fingerprints
FROM samples WHERE cause IS NOT NULL GROUP BY 1 HAVING count(*) >= {MIN_SAMPLES} ORDER BY samples DESC, cause
"""


@dataclass(frozen=True)
class Proposal:
    """A recurring cause of failures, and the rule that would have rejected most of its samples.

    Attributes:
        fingerprints: of the kernels that failed.
        samples: failed samples with this cause.
        rule: None where no single bound separates them from the other samples.
    """

    modality: str
    stage: str
    error_class: str
    fingerprints: list[str]
    samples: int
    rule: Suggestion | None


@dataclass(frozen=True)
class Proposals:
    """The proposals for one cell.

    Attributes:
        validation: all proposed rules, as a spec writes them below ``validation.MODALITY``.
        caught, wrong: failed samples, and samples that did not fail, that the rules together reject.
        failed, sound: how many of both there are.
    """

    proposals: list[Proposal]
    validation: dict[str, dict[str, Any]]
    caught: int
    wrong: int
    failed: int
    sound: int


def propose_rules(catalog: Catalog, cell: Cell, chosen: FailureFilter = FailureFilter()) -> Proposals:
    """Propose rules over the listed and probed columns of a cell's samples, for the chosen failures."""
    modality = get(cell.modality)
    samples = _samples(catalog, cell, modality, chosen).reader
    columns = list(bounded_columns(modality).items())
    proposals = []
    for cause in sql.fetch(_RECURRING, samples=samples(["cause", "fingerprints"])).to_pylist():
        stage, _, error_class = cause["cause"].partition("/")
        best = suggest(samples, columns, cause["cause"])
        proposals.append(
            Proposal(
                cell.modality,
                stage,
                error_class,
                cause["fingerprints"],
                cause["samples"],
                best[0] if best else None,
            )
        )
    validation = merge_rules(item.rule for item in proposals if item.rule)
    return Proposals(
        proposals, validation, *_count_rejections(samples([*dict(columns), "cause"]), modality, validation)
    )


def _samples(catalog: Catalog, cell: Cell, modality: Modality, chosen: FailureFilter) -> TableSpool:
    """Write the downloaded samples to a file: listed and probed columns, and the cause of failures."""

    def read(asset: str, columns: dict[str, pa.DataType], where: str | None = None) -> pa.RecordBatchReader:
        # The columns of a stage that was never materialized are null.
        return catalog.tables.read_or_empty(asset, cell, pa.schema(list(columns.items())), where)

    text = pa.string()
    probed = {name: kind for name, kind in bounded_columns(modality).items() if name not in LISTING_COLUMNS}
    listing = {
        "sample_id": text,
        "key": text,
        "source": text,
        "label": text,
        "size": pa.int64(),
        "error_class": text,
    }
    event = ["sample_id", "stage", "error_class", "fingerprint", "retryable", "at"]
    with sql.query(
        _SAMPLES,
        listing=read("dataset_registry", listing),
        raw=read("raw_assets", {"sample_id": text, "size": pa.int64()}),
        probed=read("sample_metadata", {"sample_id": text, **probed}, "probe = 'ok'"),
        failures=catalog.failures.read(cell, event, chosen=chosen),
        others=catalog.failures.read(cell, ["sample_id"]),
    ) as samples:
        return TableSpool.of(samples)


def merge_rules(rules: Iterable[Suggestion]) -> dict[str, dict[str, Any]]:
    """Return rules as a spec writes them; equal bounds of a column become one that rejects what each does."""
    columns: dict[str, dict[str, Any]] = {}
    for rule in rules:
        bounds = columns.setdefault(rule.column, {})
        limit = bounds.get(rule.bound)
        if limit is None:
            bounds[rule.bound] = rule.limit
        elif rule.bound == "none_of":
            bounds[rule.bound] = [*limit, *(value for value in rule.limit if value not in limit)]
        else:
            bounds[rule.bound] = max(limit, rule.limit) if rule.bound == "min" else min(limit, rule.limit)
    return columns


def _count_rejections(
    samples: pa.RecordBatchReader, modality: Modality, validation: dict[str, dict[str, Any]]
) -> tuple[int, int, int, int]:
    """Count by the rules as a spec would apply them; return (caught, wrong, failed, sound)."""
    bounds = validation_bounds(modality, {column: ColumnRule(**rule) for column, rule in validation.items()})
    caught = wrong = failed = sound = 0
    for batch in samples:
        table = pa.Table.from_batches([batch])
        for reason, cause in zip(rejection_reasons(table, bounds), table["cause"].to_pylist(), strict=True):
            failed, sound = failed + (cause is not None), sound + (cause is None)
            caught, wrong = caught + bool(reason and cause), wrong + bool(reason and not cause)
    return caught, wrong, failed, sound
