"""Differences between two published versions: samples, decisions, splits, labels, vectors."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mm_embed_kernels import sql
from mm_embed_kernels.contracts.features import vectors_of
from mm_embed_kernels.errors import UserError
from mm_resources.catalog import Catalog
from mm_resources.cell import Cell
from mm_resources.features.table_paths import table_path
from mm_resources.lineages.changes import changed_owners, differing_owners, own_rows
from mm_resources.registry.pins import Pin, PinnedTable
from mm_resources.storage import lance_datasets
from mm_resources.storage.row_ids import find_rows, read_rows
from mm_resources.storage.spool import TableSpool
from mm_resources.tables.stage_tables import stage_path

if TYPE_CHECKING:
    import lance

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
# Columns of a sample by which two versions are compared.
_COMPARED = {
    "raw_assets": ["key", "content_hash", "label"],
    "curated_samples": ["kept", "rule", "split"],
}
_COSINE_DIGITS = 12


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
    """Compare the published versions of two cells of one modality: by what they do not share.

    Raises:
        UserError: when nothing is published of one of them.
    """
    pins = [catalog.registry.published_pin(cell.dataset_version, cell.modality) for cell in (before, after)]
    changed = _changed_samples(catalog, *pins)
    states = [_states(catalog, pin, changed) for pin in pins]
    # Samples that differ in nothing are the same, and are not read.
    unread = 0 if changed is None else _stage(catalog, pins[1], "raw_assets").count_rows() - states[1].rows
    with sql.query(_CHANGES, before=states[0].reader(), after=states[1].reader()) as rows:
        changes = TableSpool.of(rows)
    kinds = sql.fetch(_COUNTS.format(examples=EXAMPLES), changes=changes.reader()).to_pylist()
    counts = {row["kind"]: row["samples"] for row in kinds}
    flags = sql.fetch(_FLAGS, changes=changes.reader()).to_pylist()[0]
    return CellDiff(
        after.modality,
        **{**counts, "same": counts.get("same", 0) + unread},
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


def _changed_samples(catalog: Catalog, before: Pin, after: Pin) -> pa.Array | None:
    """Return the samples whose content, decision or publish may differ; None where that cannot be told.

    Of tables that both versions share, only the rows that one of them lacks are read.
    """
    found = []
    for asset, columns in _COMPARED.items():
        places = [_place(asset, pin) for pin in (before, after)]
        found.append(changed_owners(catalog.store, places[0], places[1], "sample_id", columns))
    tables = [(table_path(pin.primary.table), pin.primary.lance_version) for pin in (before, after)]
    found.append(changed_owners(catalog.store, tables[0], tables[1], "sample_id", ()))
    known = [each for each in found if each is not None]
    return pc.unique(pa.concat_arrays(known)) if len(known) == len(found) else None


def _place(asset: str, pin: Pin) -> tuple[str, int]:
    """Return the table and the version of a pinned stage."""
    place = pin.place(asset)
    return stage_path(asset, pin.cell, place), int(place["lance_version"])


def _stage(catalog: Catalog, pin: Pin, asset: str) -> lance.LanceDataset:
    return catalog.tables.dataset(asset, pin.cell, pin.place(asset))


def _states(catalog: Catalog, pin: Pin, samples: pa.Array | None) -> TableSpool:
    """Return key, content, split, label and state of samples of a published cell; of all for None."""

    def read(dataset: lance.LanceDataset, columns: list[str]) -> pa.RecordBatchReader:
        if samples is None:
            return lance_datasets.reader(dataset, dataset.schema, columns)
        return read_rows(dataset, find_rows(dataset, "sample_id", samples), columns)

    raw, curated = (_stage(catalog, pin, asset) for asset in _COMPARED)
    streams = {
        "raw": read(raw, ["sample_id", *_COMPARED["raw_assets"]]),
        "curated": read(curated, ["sample_id", *_COMPARED["curated_samples"]]),
        "published": read(_features(catalog, pin.primary), ["sample_id"]),
    }
    with sql.query(_STATES, **streams) as rows:
        return TableSpool.of(rows)


def vector_drift(catalog: Catalog, before: Pin, after: Pin) -> VectorDrift:
    """Compare the primary embedder's vectors of two pins."""
    a, b = before.primary, after.primary
    one, other = _features(catalog, a), _features(catalog, b)
    changed = differing_owners(one, other, "feature_id", ["feature_id"])
    cosine = None
    if a.space == b.space and a.rows and b.rows:
        mean, later = _centroids(one, other)
        # Sums in another order differ in their last digits.
        cosine = round(float(mean @ later / (np.linalg.norm(mean) * np.linalg.norm(later))), _COSINE_DIGITS)
    return VectorDrift((a.rows + b.rows - len(changed)) // 2, a.rows, b.rows, cosine)


def _features(catalog: Catalog, table: PinnedTable) -> lance.LanceDataset:
    return catalog.features.dataset(table.table, table.lance_version)


def _centroids(
    one: lance.LanceDataset, other: lance.LanceDataset
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Return the mean of the vectors of two tables, each float64 [dimension]; shared rows are read once."""
    first = _sum(lance_datasets.reader(one, one.schema, ["vector"]))
    if one.uri != other.uri:
        second = _sum(lance_datasets.reader(other, other.schema, ["vector"]))
    else:
        gone, come = own_rows(one, other, ["vector"]), own_rows(other, one, ["vector"])
        second = first - _sum(gone) + _sum(come)
    return first / one.count_rows(), second / other.count_rows()


def _sum(rows: pa.RecordBatchReader) -> np.ndarray[Any, Any]:
    """Return the sum of vectors, float64 [dimension]."""
    total = np.zeros(rows.schema.field("vector").type.list_size)
    for batch in rows:
        total += vectors_of(batch).sum(axis=0, dtype=np.float64)
    return total
