"""Scores of rules, decisions and causes of failure against the reviews of people."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

from mm_embed_kernels import sql
from mm_resources.catalog import Catalog
from mm_resources.cell import Cell
from mm_resources.registry.pins import Pin
from mm_resources.tables.stage_tables import NotMaterialized

# A review applies to the bytes that were reviewed; one of a sample that was never read, to any bytes.
_REVIEWED = """
SELECT s.*, l.mark FROM samples s JOIN latest l ON s.sample_id = l.sample_id
WHERE l.content_hash = '' OR s.content_hash IS NULL OR l.content_hash = s.content_hash
"""
_BY_RULE = """
SELECT r.rule AS name, any_value(r.action) AS action,
       count(*) FILTER (NOT r.passed AND mark = 'drop') AS caught,
       count(*) FILTER (NOT r.passed AND mark = 'keep') AS wrong
FROM (SELECT mark, unnest(rules) AS r FROM curated) GROUP BY 1 ORDER BY 1
"""
_DECISION = """
SELECT 'kept or dropped' AS name, 'drop' AS action, count(*) FILTER (NOT kept AND mark = 'drop') AS caught,
       count(*) FILTER (NOT kept AND mark = 'keep') AS wrong FROM curated
"""
_BY_CAUSE = """
SELECT error_class AS name, 'fail' AS action, count(*) FILTER (mark = 'drop') AS caught,
       count(*) FILTER (mark = 'keep') AS wrong
FROM (
  SELECT DISTINCT f.error_class, r.sample_id, r.mark
  FROM failures f JOIN reviewed r ON f.sample_id = r.sample_id
) GROUP BY 1 ORDER BY 1
"""


@dataclass(frozen=True)
class Score:
    """Agreement of a rule, of the whole decision or of a cause of failure with the reviews.

    Attributes:
        kind: ``rule``, ``decision`` or ``failure``.
        name: the rule or cause.
        action: ``drop``, ``flag`` or ``fail``. A rule that flags is scored as if it dropped.
        marked: reviewed samples that it judged.
        caught: samples that it selected and that are reviewed as drop.
        wrong: samples that it selected and that are reviewed as keep.
        missed: samples that it did not select and that are reviewed as drop.
        precision: share of `caught` among the selected samples; None where it selected none.
        recall: share of `caught` among the samples reviewed as drop; None where there are none.
    """

    kind: str
    name: str
    action: str
    marked: int
    caught: int
    wrong: int
    missed: int
    precision: float | None
    recall: float | None


def score_reviews(catalog: Catalog, cell: Cell) -> list[Score]:
    """Score a cell's decision, rules and causes of failure against the reviews.

    The tables are those of the pin, or the current ones before the first publish. Only reviewed samples are
    in memory. Empty when no sample of the cell has a review.
    """
    latest, pin = catalog.reviews.latest(cell), catalog.registry.pins.get(cell)
    if not latest.num_rows:
        return []
    listed = _reviewed_samples(catalog, cell, pin, latest, "raw_assets", [])
    curated = _reviewed_samples(catalog, cell, pin, latest, "curated_samples", ["kept", "rules"])
    scores: list[Score] = []
    if curated.num_rows:
        scores += _scores("decision", curated, sql.fetch(_DECISION, curated=curated))
        scores += _scores("rule", curated, sql.fetch(_BY_RULE, curated=curated))
    if listed.num_rows:
        failures = catalog.failures.read(cell, ["sample_id", "error_class"])
        causes = sql.fetch(_BY_CAUSE, failures=failures, reviewed=listed)
        scores += _scores("failure", listed, causes)
    return scores


def _reviewed_samples(
    catalog: Catalog, cell: Cell, pin: Pin | None, latest: pa.Table, asset: str, columns: list[str]
) -> pa.Table:
    """Return columns of a stage's reviewed samples, with their mark; no rows before its first run."""
    at = pin.place(asset) if pin else None
    try:
        samples = catalog.tables.read(asset, cell, ["sample_id", "content_hash", *columns], at=at)
    except NotMaterialized:
        return pa.table({"mark": pa.array([], pa.string())})
    return sql.fetch(_REVIEWED, samples=samples, latest=latest)


def _scores(kind: str, reviewed: pa.Table, counts: pa.Table) -> list[Score]:
    drops = reviewed["mark"].to_pylist().count("drop")
    return [_score(kind, reviewed.num_rows, drops, **row) for row in counts.to_pylist()]


def _score(kind: str, marked: int, drops: int, name: str, action: str, caught: int, wrong: int) -> Score:
    selected = caught + wrong
    return Score(
        kind,
        name,
        action,
        marked,
        caught,
        wrong,
        missed=drops - caught,
        precision=caught / selected if selected else None,
        recall=caught / drops if drops else None,
    )
