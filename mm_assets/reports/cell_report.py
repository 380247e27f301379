"""Report of a cell: samples of each decision, signals, duplicates, cost and scores, in bounded memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import pyarrow as pa

from mm_assets.operations.status import cell_status
from mm_assets.reports.histograms import Histogram, signal_histograms
from mm_assets.reports.previews import MISSING, BlobPreview, preview_blobs
from mm_embed_kernels import sql
from mm_embed_kernels.rules import rule_set
from mm_embed_kernels.sandbox.sandbox import Limits
from mm_resources.catalog import Catalog
from mm_resources.cell import Cell
from mm_resources.costs.cell_costs import CellCost, cell_cost
from mm_resources.costs.prices import Prices
from mm_resources.monitoring.review_scores import Score, score_reviews
from mm_resources.monitoring.semantic_duplicates import (
    Pair,
    SemanticDuplicates,
    find_semantic_duplicates,
)
from mm_resources.registry.pins import Pin

# Cards of a sheet, by its kind; sheets of groups and pairs, and cards of a group.
MAX_CARDS = {"kept": 24, "dropped": 12, "flagged": 8}
MAX_GROUPS, MAX_MEMBERS = 12, 6
# Streams columns (all for None) of a stage of the cell.
Read = Callable[[str, list[str] | None], pa.RecordBatchReader]
# A card before its blob is previewed: the columns of `_CARD`.
Row = dict[str, Any]

_CARD = """{
  'sample_id': sample_id, 'key': key, 'label': label, 'split': split,
  'content_hash': content_hash, 'note': note
}"""
_CARD_COLUMNS = ["sample_id", "key", "label", "split", "content_hash"]
_DECISION_COLUMNS = [*_CARD_COLUMNS, "kept", "rule", "reason", "rules"]
_GROUP_COLUMNS = [*_CARD_COLUMNS, "kept", "rule", "duplicate_group", "duplicates"]
# The cards are a random choice, the same each time: by the hash of the sample id.
_SHEETS = f"""
SELECT mark.kind AS kind, mark.rule AS rule, count(*) AS samples,
       arg_min({_CARD}, md5(sample_id), {max(MAX_CARDS.values())}) AS cards
FROM (
  SELECT *, mark.note AS note FROM (
    SELECT * EXCLUDE (rules, rule, reason), unnest(list_concat(
      [{{
        'kind': CASE WHEN kept THEN 'kept' ELSE 'dropped' END,
        'rule': coalesce(rule, ''),
        'note': coalesce(reason, '')
      }}],
      [{{'kind': 'flagged', 'rule': r.rule, 'note': coalesce(r.reason, '')}}
       for r in rules if NOT r.passed AND r.action = 'flag']
    )) AS mark FROM curated
  )
)
GROUP BY 1, 2 ORDER BY array_position(['kept', 'dropped', 'flagged'], kind), samples DESC, rule
"""
_LARGEST_GROUPS = f"""
SELECT duplicate_group, count(*) AS samples FROM curated WHERE duplicate_group IS NOT NULL
GROUP BY 1 HAVING samples > 1 ORDER BY samples DESC, 1 LIMIT {MAX_GROUPS}
"""
_GROUP_CARDS = f"""
SELECT duplicate_group,
       arg_min({_CARD}, CASE WHEN kept THEN '0' ELSE '1' END || md5(sample_id), {MAX_MEMBERS}) AS cards
FROM (
  SELECT *, CASE WHEN kept THEN 'kept' ELSE 'dropped by ' || rule END
    || coalesce('; ' || duplicates[1].kind || ' ' || round(duplicates[1].score, 3)
    || coalesce(', ' || duplicates[1].span, ''), '') AS note
  FROM curated SEMI JOIN groups USING (duplicate_group)
) GROUP BY 1
"""
_CARDS_BY_ID = f"""
SELECT {_CARD} AS card FROM (SELECT *, '' AS note FROM curated SEMI JOIN ids USING (sample_id))
"""


@dataclass(frozen=True)
class Card:
    """One sample and the preview of its blob; `note` says why it is on its sheet."""

    sample_id: str
    key: str
    label: str | None
    split: str
    note: str
    preview: BlobPreview


@dataclass(frozen=True)
class Sheet:
    """Some of the samples of one decision, of one group of duplicates, or a pair of similar samples.

    Attributes:
        kind: ``kept``, ``dropped``, ``flagged``, ``duplicates`` or ``similar``.
        rule: the rule that dropped or flagged; the group's id; the pair's cosine similarity.
        samples: how many there are, of which `cards` are some.
    """

    kind: str
    rule: str
    samples: int
    cards: list[Card]


@dataclass(frozen=True)
class CellReport:
    """The contents of a report of one cell.

    Attributes:
        counts: see `mm_assets.operations.status.cell_status`.
        sheets: a sheet for each decision.
        groups: the largest groups of duplicates.
        similar: semantic duplicates: pairs with nearly equal vectors that no group contains.
        checked_vectors: vectors whose neighbours were searched for `similar`.
        cost: in the currency of the price table.
        scores: of rules and failures against reviews.
    """

    modality: str
    counts: dict[str, Any]
    sheets: list[Sheet]
    groups: list[Sheet]
    similar: list[Sheet]
    checked_vectors: int
    histograms: list[Histogram]
    cost: CellCost
    scores: list[Score]


def cell_report(catalog: Catalog, cell: Cell, prices: Prices, limits: Limits = Limits()) -> CellReport:
    """Report a cell as it is published; before the first publish, as it is curated.

    Raises:
        UserError: when the cell is not curated yet.
    """
    pin = catalog.registry.pins.get(cell)

    def read(asset: str, columns: list[str] | None) -> pa.RecordBatchReader:
        return catalog.tables.read(asset, cell, columns, at=pin.place(asset) if pin else None)

    decisions = _decisions(read)
    groups, members = _groups(read)
    near = _find_similar_pairs(catalog, pin)
    pairs = near.pairs[:MAX_GROUPS]
    pair_rows = _pair_rows(pairs, read)
    rows = [*(row["cards"] for row in decisions), *members.values(), *pair_rows]
    hashes = list(dict.fromkeys(row["content_hash"] for cards in rows for row in cards))
    previews = preview_blobs(catalog, cell, hashes, limits)

    def cards(rows: list[Row]) -> list[Card]:
        return [
            Card(
                row["sample_id"],
                row["key"],
                row["label"],
                row["split"],
                row["note"],
                previews.get(row["content_hash"], MISSING),
            )
            for row in rows
        ]

    spec = catalog.registry.spec(cell.dataset, cell.version)
    return CellReport(
        modality=cell.modality,
        counts=cell_status(catalog, cell),
        sheets=[Sheet(row["kind"], row["rule"], row["samples"], cards(row["cards"])) for row in decisions],
        groups=[Sheet("duplicates", group, count, cards(members[group])) for group, count in groups.items()],
        similar=[
            Sheet("similar", f"{pair.score:.3f}", 2, cards(both))
            for pair, both in zip(pairs, pair_rows, strict=True)
        ],
        checked_vectors=near.checked,
        histograms=signal_histograms(
            rule_set(cell.modality, spec.curation.rules), partial(read, "validated_samples")
        ),
        cost=cell_cost(catalog, cell, prices),
        scores=score_reviews(catalog, cell),
    )


def _decisions(read: Read) -> list[dict[str, Any]]:
    """Return kind, rule, number of samples and cards of each decision."""
    found = sql.fetch(_SHEETS, curated=read("curated_samples", _DECISION_COLUMNS)).to_pylist()
    return [{**row, "cards": row["cards"][: MAX_CARDS[row["kind"]]]} for row in found]


def _groups(read: Read) -> tuple[dict[str, int], dict[str, list[Row]]]:
    """Return the largest groups of duplicates, by id: their number of samples, and their cards."""
    largest = sql.fetch(_LARGEST_GROUPS, curated=read("curated_samples", ["duplicate_group"]))
    if not largest.num_rows:
        return {}, {}
    found = sql.fetch(_GROUP_CARDS, curated=read("curated_samples", _GROUP_COLUMNS), groups=largest)
    sizes = {row["duplicate_group"]: row["samples"] for row in largest.to_pylist()}
    return sizes, {row["duplicate_group"]: row["cards"] for row in found.to_pylist()}


def _find_similar_pairs(catalog: Catalog, pin: Pin | None) -> SemanticDuplicates:
    if pin is None:
        return SemanticDuplicates(0, 0, [])
    table = pin.primary
    return find_semantic_duplicates(catalog, table.table, table.lance_version, table.index)


def _pair_rows(pairs: list[Pair], read: Read) -> list[list[Row]]:
    """Return the cards of the two samples of each pair, each with the span of its vector."""
    if not pairs:
        return []
    names = [name for pair in pairs for name in (pair.a, pair.b)]
    ids = pa.table({"sample_id": pa.array(names, pa.string())})
    curated = read("curated_samples", _CARD_COLUMNS)
    found = sql.fetch(_CARDS_BY_ID, curated=curated, ids=ids)["card"].to_pylist()
    by_id = {row["sample_id"]: row for row in found}
    return [
        [{**by_id[pair.a], "note": pair.span_a}, {**by_id[pair.b], "note": pair.span_b}] for pair in pairs
    ]
