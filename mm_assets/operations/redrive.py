"""Redrives: compute chosen failures again, permanent ones included, in an ordinary run of their cell."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa

from mm_embed_kernels import sql
from mm_embed_kernels.contracts.pipeline import COMPUTING_STAGES, FAILURE_STAGES
from mm_embed_kernels.errors import UserError, unknown_choice
from mm_resources.catalog import Catalog
from mm_resources.cell import Cell
from mm_resources.tables.failure_events import DECIDED, FailureFilter

_KEY = ["stage", "sample_id", "segment_id", "embedder"]
_COLUMNS = [*_KEY, "error_class", "attempt"]
# Samples that a frozen listing or spec rejects, and rows that violate a contract: no retry changes them.
_TRIABLE = f"""
SELECT f.* FROM failures f LEFT JOIN refused r ON f.stage = 'raw_assets' AND f.sample_id = r.sample_id
WHERE r.sample_id IS NULL AND f.stage IN {COMPUTING_STAGES} AND f.error_class NOT IN {DECIDED}
"""
_OUTCOMES = f"""
WITH tried AS MATERIALIZED (SELECT * FROM ({_TRIABLE})),
now AS MATERIALIZED (SELECT {", ".join(_KEY)}, max(attempt) AS attempt FROM after GROUP BY {", ".join(_KEY)}),
later AS (
  SELECT sample_id FROM (SELECT stage, sample_id FROM now EXCEPT SELECT stage, sample_id FROM before)
  WHERE sample_id IS NOT NULL
),
outcomes AS (
  SELECT b.attempt AS was, a.attempt, a.stage IS NULL AS gone,
         b.sample_id IN (SELECT sample_id FROM later) AS late
  FROM tried b LEFT JOIN now a ON {" AND ".join(f"b.{name} IS NOT DISTINCT FROM a.{name}" for name in _KEY)}
)
SELECT count(*) AS tried, count(*) FILTER (gone AND NOT late) AS passed,
       count(*) FILTER (attempt > was OR (gone AND late)) AS failed
FROM outcomes
"""


@dataclass(frozen=True)
class Outcome:
    """Counts of the retried failures of a cell; the run has not reached the others."""

    tried: int
    passed: int
    failed: int


@dataclass(frozen=True)
class Redrive:
    """The chosen failures of one cell before the run.

    Attributes:
        triable: number of those that a retry may change.
        versions: of the failure tables, by stage.
    """

    cell: Cell
    chosen: FailureFilter
    triable: int
    versions: dict[str, int]

    def outcome(self, catalog: Catalog) -> Outcome:
        """Compare the failures with those after the run."""
        failures = catalog.failures
        counts = sql.fetch(
            _OUTCOMES,
            failures=failures.read(self.cell, _COLUMNS, chosen=self.chosen, versions=self.versions),
            before=failures.read(self.cell, ["stage", "sample_id"], versions=self.versions),
            after=failures.read(self.cell, _COLUMNS),
            refused=_refused_samples(catalog, self.cell),
        )
        return Outcome(**counts.to_pylist()[0])


def select_redrives(
    catalog: Catalog, dataset_version: str, cells: list[Cell], chosen: FailureFilter
) -> list[Redrive]:
    """Select the cells with chosen failures that a retry may change; none where nothing has failed.

    Raises:
        UserError: for a stage or class without a failure, naming those with failures.
    """
    failures = catalog.failures
    if chosen.stage not in ("", *FAILURE_STAGES):
        raise unknown_choice("--stage", chosen.stage, FAILURE_STAGES)
    causes = failures.causes(cells).to_pylist()
    matching = [
        cause
        for cause in causes
        if chosen.stage in ("", cause["stage"]) and chosen.error_class in ("", cause["error_class"])
    ]
    if causes and not matching:
        there = ", ".join(sorted({f"{cause['error_class']} in {cause['stage']}" for cause in causes}))
        raise UserError(f"no such failure of {dataset_version}; there are: {there}")
    return [item for item in _redrives(catalog, cells, chosen) if item.triable]


def _redrives(catalog: Catalog, cells: list[Cell], chosen: FailureFilter) -> Iterator[Redrive]:
    """Yield the redrive of each cell, also where no retry may change anything."""
    for cell in cells:
        versions = catalog.failures.versions(cell)
        events = catalog.failures.read(cell, _COLUMNS, chosen=chosen, versions=versions)
        counted = sql.fetch(
            f"SELECT count(*) AS n FROM ({_TRIABLE})",
            failures=events,
            refused=_refused_samples(catalog, cell),
        )
        yield Redrive(cell, chosen, counted["n"][0].as_py(), versions)


def _refused_samples(catalog: Catalog, cell: Cell) -> pa.RecordBatchReader:
    """Stream the samples that the listing rejects; none before the first run."""
    schema = pa.schema([("sample_id", pa.string())])
    return catalog.tables.read_or_empty("dataset_registry", cell, schema, "error_class IS NOT NULL")
