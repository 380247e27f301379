"""Validation rules that would have caught a cell's failures at the door."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from mm_embed_kernels import sql
from mm_embed_kernels.modalities import Modality, get
from mm_embed_kernels.spec.thresholds import ColumnRule
from mm_embed_kernels.validation.bounds import (
    EXTENSION_SQL,
    LISTED,
    REJECTED,
    judge,
    judged_columns,
    validation_bounds,
)
from mm_embed_kernels.validation.suggestions import RECURS, Suggestion, suggest
from mm_resources.catalog import Catalog
from mm_resources.cell import Cell
from mm_resources.storage.spool import TableSpool
from mm_resources.tables.failure_events import FailureFilter

# What may pass later is not the sample's fault, and what a rule or the listing refuses never came through the
# door.
_SAMPLES = f"""
WITH causes AS (
  SELECT sample_id, arg_min(stage || '/' || error_class, "at") AS cause, list(DISTINCT fingerprint) AS fingerprints
  FROM failures WHERE NOT retryable AND error_class <> '{REJECTED}' GROUP BY 1
), spared AS (SELECT DISTINCT sample_id FROM others WHERE sample_id IS NOT NULL)
SELECT coalesce(l.size, r.size) AS size, {EXTENSION_SQL.replace("key", "l.key")} AS extension, l.source, l.label,
       m.* EXCLUDE (sample_id), c.cause, c.fingerprints
FROM listing l LEFT JOIN raw r USING (sample_id) LEFT JOIN probed m USING (sample_id) LEFT JOIN causes c USING (sample_id)
WHERE l.error_class IS NULL AND NOT (c.cause IS NULL AND l.sample_id IN (FROM spared))
"""
_RECURRING = f"""
SELECT cause, count(*) AS samples, list_sort(list_distinct(flatten(list(fingerprints)))) AS fingerprints
FROM samples WHERE cause IS NOT NULL GROUP BY 1 HAVING count(*) >= {RECURS} ORDER BY samples DESC, cause
"""


@dataclass(frozen=True)
class Proposal:
    """A recurring cause and the rule that would have caught most of it; no rule where no single bound tells it apart."""

    modality: str
    stage: str
    error_class: str
    fingerprints: list[str]
    samples: int
    rule: Suggestion | None


@dataclass(frozen=True)
class Proposals:
    """What is proposed for one cell.

    Attributes:
        validation: the rules together, as the spec writes them below ``validation.MODALITY``.
        caught, wrong: failed samples, and samples that did not fail, that the rules together reject.
        failed, sound: how many of both there are.
    """

    proposals: list[Proposal]
    validation: dict[str, dict[str, Any]]
    caught: int
    wrong: int
    failed: int
    sound: int


def propose(catalog: Catalog, cell: Cell, chosen: FailureFilter = FailureFilter()) -> Proposals:
    """Look for rules over what the listing and the probe say of a cell's samples, for the chosen failures."""
    modality = get(cell.modality)
    samples = _samples(catalog, cell, modality, chosen).reader
    columns = list(judged_columns(modality).items())
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
    validation = merged(item.rule for item in proposals if item.rule)
    return Proposals(
        proposals, validation, *_judged(samples([*dict(columns), "cause"]), modality, validation)
    )


def _samples(catalog: Catalog, cell: Cell, modality: Modality, chosen: FailureFilter) -> TableSpool:
    """Every sample that came through the door, with what is known of it and why it failed, in a file on disk."""

    def read(asset: str, columns: dict[str, pa.DataType], where: str | None = None) -> pa.RecordBatchReader:
        try:
            return catalog.tables.read(asset, cell, list(columns), where)
        except LookupError:
            return pa.RecordBatchReader.from_batches(pa.schema(list(columns.items())), [])

    text = pa.string()
    probed = {name: kind for name, kind in judged_columns(modality).items() if name not in LISTED}
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
    ) as found:
        return TableSpool.of(found)


def merged(rules: Iterable[Suggestion]) -> dict[str, dict[str, Any]]:
    """Rules as the spec writes them; two bounds of one column become the one that rejects what both do."""
    columns: dict[str, dict[str, Any]] = {}
    for rule in rules:
        bounds = columns.setdefault(rule.column, {})
        held = bounds.get(rule.bound)
        if held is None:
            bounds[rule.bound] = rule.limit
        elif rule.bound == "none_of":
            bounds[rule.bound] = [*held, *(value for value in rule.limit if value not in held)]
        else:
            bounds[rule.bound] = max(held, rule.limit) if rule.bound == "min" else min(held, rule.limit)
    return columns


def _judged(
    samples: pa.RecordBatchReader, modality: Modality, validation: dict[str, dict[str, Any]]
) -> tuple[int, int, int, int]:
    """(caught, wrong, failed, sound), counted by the very rules that a spec would hold."""
    bounds = validation_bounds(modality, {column: ColumnRule(**rule) for column, rule in validation.items()})
    caught = wrong = failed = sound = 0
    for batch in samples:
        table = pa.Table.from_batches([batch])
        for reason, cause in zip(judge(table, bounds), table["cause"].to_pylist(), strict=True):
            failed, sound = failed + (cause is not None), sound + (cause is None)
            caught, wrong = caught + bool(reason and cause), wrong + bool(reason and not cause)
    return caught, wrong, failed, sound
