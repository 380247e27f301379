"""Marks: what people say of samples, keep or drop; and how well rules and failures agree with them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from mm_embed_kernels import sql
from mm_embed_kernels.contracts import MARKS
from mm_resources.catalog import Catalog
from mm_resources.cell import Cell
from mm_resources.storage import lance_datasets

_LATEST = """
SELECT sample_id, arg_max(mark, "at") AS mark, arg_max(coalesce(content_hash, ''), "at") AS content_hash FROM marks GROUP BY sample_id
"""
# A mark speaks of the bytes that were marked; of those that were never read, whatever they are.
_MARKED = """
SELECT s.*, l.mark FROM samples s JOIN latest l ON s.sample_id = l.sample_id
WHERE l.content_hash = '' OR s.content_hash IS NULL OR l.content_hash = s.content_hash
"""
_BY_RULE = """
SELECT r.rule AS name, any_value(r.action) AS action, count(*) FILTER (NOT r.passed AND mark = 'drop') AS caught,
       count(*) FILTER (NOT r.passed AND mark = 'keep') AS wrong
FROM (SELECT mark, unnest(rules) AS r FROM judged) GROUP BY 1 ORDER BY 1
"""
_DECISION = """
SELECT 'kept or dropped' AS name, 'drop' AS action, count(*) FILTER (NOT kept AND mark = 'drop') AS caught,
       count(*) FILTER (NOT kept AND mark = 'keep') AS wrong FROM judged
"""
_BY_CAUSE = """
SELECT error_class AS name, 'fail' AS action, count(*) FILTER (mark = 'drop') AS caught, count(*) FILTER (mark = 'keep') AS wrong
FROM (SELECT DISTINCT f.error_class, m.sample_id, m.mark FROM failures f JOIN marked m ON f.sample_id = m.sample_id) GROUP BY 1 ORDER BY 1
"""


@dataclass(frozen=True)
class Score:
    """How well a rule, all of them together or a cause of failure finds the samples that people would drop.

    Attributes:
        kind: ``rule``, ``decision`` or ``failure``.
        action: what it does: ``drop``, ``flag`` or ``fail``. A rule that flags is scored as if it dropped.
        marked: samples with a mark that it was asked about.
        caught: of them, those that it found and that are marked drop; wrong: found, but marked keep; missed: marked drop, not found.
        precision: caught of all that it found; recall: caught of all that are marked drop; None where there are none.
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


class Marks:
    """The marks of a store, append-only."""

    def __init__(self, catalog: Catalog) -> None:
        self.catalog = catalog
        self._uri = catalog.store.uri("ledger/marks.lance")

    def record(self, rows: Iterable[dict[str, Any]]) -> int:
        """Record marks, all at one time; how many.

        Args:
            rows: dicts of `MARKS` without ``at``.
        """
        now = datetime.now(UTC)
        table = MARKS.rows([{**row, "at": now} for row in rows])
        if table.num_rows:
            lance_datasets.append(self._uri, table)
        return int(table.num_rows)

    def latest(self, cell: Cell) -> pa.Table:
        """``sample_id``, ``mark`` and ``content_hash`` ("" where it was not known) of a dataset's samples of one modality."""
        where = f"dataset = '{cell.dataset}' AND modality = '{cell.modality}'"
        columns = ["sample_id", "mark", "content_hash", "at"]
        return sql.fetch(
            _LATEST,
            marks=lance_datasets.reader(lance_datasets.open_dataset(self._uri), MARKS.bare, columns, where),
        )

    def scores(self, cell: Cell) -> list[Score]:
        """The cell's decision, rules and causes of failure against the marks, as it is published or else as it stands.

        What lies in memory are marked samples, and no others. Empty where no sample of the cell is marked.
        """
        latest, pin = self.latest(cell), self.catalog.registry.pin(cell)
        if not latest.num_rows:
            return []

        def marked(asset: str, columns: list[str]) -> pa.Table:
            version = pin.stages[asset]["lance_version"] if pin else None
            try:
                samples = self.catalog.tables.read(
                    asset, cell, ["sample_id", "content_hash", *columns], version=version
                )
            except LookupError:
                return pa.table({"mark": pa.array([], pa.string())})
            return sql.fetch(_MARKED, samples=samples, latest=latest)

        listed, judged = marked("raw_assets", []), marked("curated_samples", ["kept", "rules"])
        found: list[Score] = []
        if judged.num_rows:
            found += _scored("decision", judged, sql.fetch(_DECISION, judged=judged))
            found += _scored("rule", judged, sql.fetch(_BY_RULE, judged=judged))
        if listed.num_rows:
            failures = self.catalog.failures.read(cell, ["sample_id", "error_class"])
            found += _scored("failure", listed, sql.fetch(_BY_CAUSE, failures=failures, marked=listed))
        return found


def _scored(kind: str, population: pa.Table, found: pa.Table) -> list[Score]:
    drops = population["mark"].to_pylist().count("drop")
    return [_score(kind, population.num_rows, drops, **row) for row in found.to_pylist()]


def _score(kind: str, marked: int, drops: int, name: str, action: str, caught: int, wrong: int) -> Score:
    precision = caught / (caught + wrong) if caught + wrong else None
    return Score(
        kind,
        name,
        action,
        marked,
        caught,
        wrong,
        drops - caught,
        precision,
        caught / drops if drops else None,
    )
