"""Facets: counts of values over the rows that a filter chooses, remembered for each version of a table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from mm_embed_kernels import sql
from mm_resources.registry.pins import Pin
from mm_resources.retrieval.filters import filter_errors, row_errors
from mm_resources.serving.service import Service
from mm_resources.storage import lance_datasets

# Values of a facet, the most frequent first.
MOST_VALUES = 50
_COLUMNS = {"label": "label", "split": "split", "rule": "passed"}
_STATEMENTS = {
    "label": "SELECT label AS value, count(*) AS n FROM rows WHERE label IS NOT NULL GROUP BY 1",
    "split": "SELECT split AS value, count(*) AS n FROM rows GROUP BY 1",
    # Of features, the rules that flag them: those that others have passed.
    "rule": """
WITH passes AS (SELECT unnest(passed) AS value FROM rows)
SELECT value, (SELECT count(*) FROM rows) - count(*) AS n FROM passes GROUP BY 1 HAVING n > 0
""",
}
_SAMPLE_STATEMENTS = {
    "kept": """
SELECT CASE WHEN kept THEN 'kept' ELSE 'dropped' END AS value, count(*) AS n FROM rows GROUP BY 1
""",
    "rule": """
SELECT value, count(*) AS n FROM (
  SELECT verdict.rule AS value FROM (SELECT unnest(rules) AS verdict FROM rows) WHERE NOT verdict.passed
) GROUP BY 1
""",
    "label": _STATEMENTS["label"],
    "split": _STATEMENTS["split"],
}
_SAMPLE_COLUMNS = {"kept": "kept", "rule": "rules", "label": "label", "split": "split"}


def feature_facets(
    service: Service, pins: Sequence[Pin], embedder: str | None, where: str | None, names: Sequence[str]
) -> dict[str, dict[str, int]]:
    """Return the counts of each facet over the features of pins that pass a filter."""
    found: dict[str, dict[str, int]] = {}
    for name in names:
        counts: Counter[str] = Counter()
        for pin in pins:
            table = pin.table(embedder)
            counts.update(_feature_counts(service, name, table.table, table.lance_version, where))
        found[name] = dict(counts.most_common(MOST_VALUES))
    return found


def _feature_counts(
    service: Service, name: str, table: str, version: int, where: str | None
) -> dict[str, int]:
    def count() -> dict[str, int]:
        dataset = service.catalog.features.dataset(table, version)
        return _counts(_STATEMENTS[name], dataset, _COLUMNS[name], where)

    return service.remember(("features", name, table, version, where), count)


def sample_facets(
    service: Service, pin: Pin, where: str | None, names: Sequence[str]
) -> dict[str, dict[str, int]]:
    """Return the counts of each facet over the samples of a pin that pass a filter."""
    return {name: _sample_counts(service, name, pin, where) for name in names}


def _sample_counts(service: Service, name: str, pin: Pin, where: str | None) -> dict[str, int]:
    place = pin.place("curated_samples")

    def count() -> dict[str, int]:
        dataset = service.catalog.tables.dataset("curated_samples", pin.cell, place)
        return _counts(_SAMPLE_STATEMENTS[name], dataset, _SAMPLE_COLUMNS[name], where)

    return service.remember(("samples", name, pin.cell, *place.values(), where), count)


def _counts(statement: str, dataset: Any, column: str, where: str | None) -> dict[str, int]:
    # The filter is Lance's alone: it knows the columns of this table, and nothing else.
    with filter_errors(where), row_errors(where):
        rows = lance_datasets.reader(
            dataset, dataset.schema.remove_metadata(), [column], f"({where})" if where else None
        )
        counted = sql.fetch(
            f"SELECT * FROM ({statement}) ORDER BY n DESC, value LIMIT {MOST_VALUES}", rows=rows.read_all()
        ).to_pylist()
    return {str(row["value"]): int(row["n"]) for row in counted}
