"""Accounting: every discovered sample is published, dropped or failed, and is counted once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import pyarrow as pa

from mm_embed_kernels import sql
from mm_resources.cell import Cell
from mm_resources.storage.spool import TableSpool
from mm_resources.tables.failure_events import FailureEvents
from mm_resources.tables.stage_tables import PinnedStage, StageTables

_COUNTS = """
SELECT
  (SELECT count(*) FROM listing) AS discovered,
  (SELECT count(*) FILTER (status = 'fetched') FROM raw) AS ingested,
  (SELECT count(*) FROM valid) AS valid,
  c.kept, c.dropped,
  (SELECT count(*) FROM segments) AS segments
FROM (SELECT count(*) FILTER (kept) AS kept, count(*) FILTER (NOT kept) AS dropped FROM curated) c
"""
_PUBLISHED = "SELECT DISTINCT sample_id FROM published"
# A sample with at least one vector of the primary embedder is published, whatever else of it failed.
_FAILED = """
SELECT count(*) AS failed FROM (
  SELECT DISTINCT sample_id FROM failures WHERE sample_id IS NOT NULL
  EXCEPT SELECT sample_id FROM published
)
"""


@dataclass(frozen=True)
class Accounting:
    """Counts of one cell; samples, but `segments` and `features`, which count rows.

    Samples are `undecided` in a cell whose run has not finished and that is not published.
    """

    discovered: int = 0
    ingested: int = 0
    valid: int = 0
    kept: int = 0
    segments: int = 0
    features: int = 0
    published: int = 0
    dropped: int = 0
    failed: int = 0
    undecided: int = 0
    failures: dict[str, int] = field(default_factory=dict)

    @property
    def is_balanced(self) -> bool:
        """Promise 1: discovered = published + dropped + failed."""
        return self.discovered == self.published + self.dropped + self.failed

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def account(
    tables: StageTables,
    failures: FailureEvents,
    cell: Cell,
    published: pa.RecordBatchReader,
    features: int,
    stages: Mapping[str, PinnedStage] | None = None,
) -> Accounting:
    """Count a cell as its stages are published.

    Args:
        published: ``sample_id`` of every feature row of the primary embedder.
        features: feature rows over all embedders.
        stages: those that a pin names, to count the cell as the pin holds it.
    """
    at = stages or {}
    failed_at = (
        {
            asset: meta.failures
            for asset in at
            if (meta := tables.meta(asset, cell, at[asset])) and meta.failures
        }
        if at
        else None
    )
    counts = sql.fetch(
        _COUNTS,
        listing=_rows(tables, "dataset_registry", cell, "sample_id", at.get("dataset_registry")),
        raw=_rows(tables, "raw_assets", cell, "status", at.get("raw_assets")),
        valid=_rows(tables, "validated_samples", cell, "sample_id", at.get("validated_samples")),
        curated=_rows(tables, "curated_samples", cell, "kept", at.get("curated_samples")),
        segments=_rows(tables, "segments", cell, "sample_id", at.get("segments")),
    ).to_pylist()[0]
    with sql.query(_PUBLISHED, published=published) as found:
        distinct = TableSpool.of(found)
    events = failures.read(cell, ["sample_id"], versions=failed_at)
    failed = sql.fetch(_FAILED, failures=events, published=distinct.reader())["failed"][0].as_py()
    by_class = failures.by_class(cell, versions=failed_at)
    return Accounting(**counts, features=features, published=distinct.rows, failed=failed, failures=by_class)


def _rows(
    tables: StageTables, asset: str, cell: Cell, column: str, at: PinnedStage | None
) -> pa.RecordBatchReader:
    """Stream one column of a stage's table; a stage that was never materialized counts as empty."""
    kind = pa.bool_() if column == "kept" else pa.string()
    return tables.read_or_empty(asset, cell, pa.schema([(column, kind)]), at=at)
