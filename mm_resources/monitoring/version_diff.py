"""Differences between two published versions: samples, decisions, splits, labels, vectors."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from mm_embed_kernels import sql
from mm_embed_kernels.contracts.features import vectors_of
from mm_embed_kernels.errors import UserError
from mm_resources.catalog import Catalog
from mm_resources.cell import Cell
from mm_resources.registry.pins import Pin
from mm_resources.storage.spool import TableSpool

EXAMPLES = 5
_STATES = """
SELECT r.sample_id, r.key, r.content_hash, c.split, r.label,
       CASE WHEN p.sample_id IS NOT NULL THEN 'published'
            WHEN NOT c.kept THEN concat_ws(' by ', 'dropped', c.rule) ELSE 'failed' END AS state
FROM raw r LEFT JOIN curated c USING (sample_id)
LEFT JOIN (SELECT DISTINCT sample_id FROM published) p USING (sample_id)
"""
# A removed and an added sample with the same bytes are one moved sample; several of them pair up in the order
# of their keys.
_CHANGES = """
WITH met AS MATERIALIZED (
  SELECT b AS old, a AS new FROM before b FULL JOIN after a ON b.sample_id = a.sample_id
),
gone AS (
  SELECT old, row_number() OVER (PARTITION BY old.content_hash ORDER BY old.key) AS rank FROM met
  WHERE new.sample_id IS NULL
),
come AS (
  SELECT new, row_number() OVER (PARTITION BY new.content_hash ORDER BY new.key) AS rank FROM met
  WHERE old.sample_id IS NULL
),
moved AS MATERIALIZED (
  SELECT g.old, c.new FROM gone g JOIN come c ON g.old.content_hash = c.new.content_hash AND g.rank = c.rank
),
pairs AS (
  SELECT old, new, false AS moved FROM met WHERE old.sample_id = new.sample_id
  UNION ALL SELECT old, new, true FROM moved
  UNION ALL SELECT old, NULL, false FROM met
  WHERE new.sample_id IS NULL AND old.sample_id NOT IN (SELECT old.sample_id FROM moved)
  UNION ALL SELECT NULL, new, false FROM met
  WHERE old.sample_id IS NULL AND new.sample_id NOT IN (SELECT new.sample_id FROM moved)
)
SELECT old.key AS old_key, new.key AS new_key, old.state AS old_state, new.state AS new_state,
       CASE WHEN old.sample_id IS NULL THEN 'added' WHEN new.sample_id IS NULL THEN 'removed'
            WHEN moved THEN 'moved'
            WHEN old.content_hash IS DISTINCT FROM new.content_hash THEN 'altered' ELSE 'same' END AS kind,
       coalesce(old.state <> new.state, false) AS decided,
       coalesce(old.split <> new.split, false) AS resplit,
       old.sample_id IS NOT NULL AND new.sample_id IS NOT NULL
         AND old.label IS DISTINCT FROM new.label AS relabelled
FROM pairs
"""
_COUNTS = """
SELECT kind, count(*) AS samples,
       arg_min(coalesce(new_key, old_key), coalesce(new_key, old_key), {examples}) AS examples
FROM changes GROUP BY kind
"""
_DECISIONS = """
SELECT old_state AS "from", new_state AS "to", count(*) AS samples,
       arg_min(new_key, new_key, {examples}) AS examples
FROM changes WHERE decided GROUP BY ALL ORDER BY samples DESC, "from", "to"
"""
_FLAGS = (
    "SELECT count(*) FILTER (resplit) AS resplit, count(*) FILTER (relabelled) AS relabelled FROM changes"
)
_SHARED = "SELECT count(*) AS n FROM a SEMI JOIN b USING (feature_id)"


@dataclass(frozen=True)
class VectorDrift:
    """Difference between the primary embedder's vectors of two versions.

    Attributes:
        shared: features (segment and fingerprint) of both versions; their vectors are equal.
        before, after: features of each version.
        centroid_cosine: cosine of the two versions' mean vectors; None where their spaces differ or one has
            no rows.
    """

    shared: int
    before: int
    after: int
    centroid_cosine: float | None


@dataclass(frozen=True)
class CellDiff:
    """Difference between a cell and that of an earlier version; all counts are samples.

    Attributes:
        modality: modality of both cells.
        added: samples of the later version only.
        removed: samples of the earlier version only.
        altered: samples of both with other bytes.
        moved: samples with the same bytes under another key.
        same: samples of both with the same bytes.
        decisions: ``{from, to, samples, examples}`` for samples of both versions with another state:
            published, failed, or dropped by RULE.
        resplit: samples of both in another split.
        relabelled: samples of both with another label.
        examples: first keys of each kind of change.
        vectors: difference of the vectors.
    """

    modality: str
    added: int = 0
    removed: int = 0
    altered: int = 0
    moved: int = 0
    same: int = 0
    decisions: list[dict[str, Any]] = field(default_factory=list)
    resplit: int = 0
    relabelled: int = 0
    examples: dict[str, list[str]] = field(default_factory=dict)
    vectors: VectorDrift | None = None


def diff(catalog: Catalog, before: Cell, after: Cell) -> CellDiff:
    """Compare the published versions of two cells of one modality.

    Raises:
        UserError: when nothing is published of one of them.
    """
    pins = [catalog.registry.published_pin(cell.dataset_version, cell.modality) for cell in (before, after)]
    states = [_states(catalog, cell, pin) for cell, pin in zip((before, after), pins, strict=True)]
    with sql.query(_CHANGES, before=states[0].reader(), after=states[1].reader()) as rows:
        changes = TableSpool.of(rows)
    kinds = sql.fetch(_COUNTS.format(examples=EXAMPLES), changes=changes.reader()).to_pylist()
    flags = sql.fetch(_FLAGS, changes=changes.reader()).to_pylist()[0]
    return CellDiff(
        after.modality,
        **{row["kind"]: row["samples"] for row in kinds},
        decisions=sql.fetch(_DECISIONS.format(examples=EXAMPLES), changes=changes.reader()).to_pylist(),
        **flags,
        examples={row["kind"]: row["examples"] for row in kinds if row["kind"] != "same"},
        vectors=vector_drift(catalog, *pins),
    )


def common_modalities(catalog: Catalog, before: str, after: str) -> list[str]:
    """Return the modalities that both versions have published, sorted.

    Raises:
        UserError: when there is none.
    """
    published = [
        {cell.modality for cell in catalog.registry.cells(version) if catalog.registry.pins.get(cell)}
        for version in (before, after)
    ]
    if not published[0] & published[1]:
        raise UserError(
            f"{before} and {after} have published no modality in common; run `mm backfill` for both"
        )
    return sorted(published[0] & published[1])


def _states(catalog: Catalog, cell: Cell, pin: Pin) -> TableSpool:
    """Return key, content, split, label and state of every sample of a published cell."""

    def stage(asset: str, columns: list[str]) -> pa.RecordBatchReader:
        return catalog.tables.read(asset, cell, columns, at=pin.place(asset))

    published = catalog.features.rows(pin, ["sample_id"])
    raw = stage("raw_assets", ["sample_id", "key", "content_hash", "label"])
    curated = stage("curated_samples", ["sample_id", "kept", "rule", "split"])
    with sql.query(_STATES, raw=raw, curated=curated, published=published) as rows:
        return TableSpool.of(rows)


def vector_drift(catalog: Catalog, before: Pin, after: Pin) -> VectorDrift:
    """Compare the primary embedder's vectors of two pins."""
    a, b = before.primary, after.primary
    shared = sql.fetch(
        _SHARED,
        a=catalog.features.rows(before, ["feature_id"]),
        b=catalog.features.rows(after, ["feature_id"]),
    )["n"][0].as_py()
    cosine = None
    if a.space == b.space and a.rows and b.rows:
        one, other = (_centroid(catalog, pin) for pin in (before, after))
        cosine = float(one @ other / (np.linalg.norm(one) * np.linalg.norm(other)))
    return VectorDrift(shared, a.rows, b.rows, cosine)


def _centroid(catalog: Catalog, pin: Pin) -> np.ndarray[Any, Any]:
    """Return the mean of a table's vectors, float64 [dimension]."""
    table = pin.primary
    total = np.zeros(table.dimension)
    for batch in catalog.features.rows(pin, ["vector"]):
        total += vectors_of(batch).sum(axis=0, dtype=np.float64)
    return total / max(1, table.rows)
