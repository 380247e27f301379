"""Search over published feature tables: by vector, by words, or both; in one version, several, or all."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from mm_embed_kernels import sql
from mm_embed_kernels.errors import UserError
from mm_resources.features import vector_indexes
from mm_resources.features.feature_tables import FeatureTables
from mm_resources.registry.pins import Pin, PinnedTable
from mm_resources.retrieval.arguments import require_choice, require_number, require_text
from mm_resources.retrieval.filters import check_filter, filter_errors, join_conditions
from mm_resources.retrieval.identifiers import find_row, identifier_of, require_row
from mm_resources.retrieval.query_vectors import Query, QueryEncoder, check_query

if TYPE_CHECKING:
    import lance

HIT = [
    "feature_id",
    "sample_id",
    "segment_id",
    "entity_id",
    "content_hash",
    "source_uri",
    "modality",
    "label",
    "split",
    "span",
]
# Columns that a search reads.
_READ = [*HIT, "key", "text"]
MODES = ("vector", "text", "hybrid")
FINDS = ("neighbours", "duplicates", "hard_negatives")
GROUPS = {"sample": "sample_id", "entity": "entity_id"}
# Cosine from which two samples count as duplicates.
DUPLICATE_SCORE = 0.95
# Reciprocal rank fusion (Cormack et al., SIGIR 2009): the hit of rank r in a list scores 1 / (60 + r).
RANK_CONSTANT = 60
# Hits of one search, all of which are in memory.
_MOST_HITS = 1_000_000
# Hits that each of the two fused lists has, as a multiple of k.
FUSION_DEPTH = 5
Hit = dict[str, Any]
# (table, limit, filter) -> hits with their score, best first.
Ranking = Callable[["_Target", int, str | None], list[Hit]]


@dataclass(frozen=True)
class SearchRequest:
    """The arguments of one search, see `FeatureStore.search`."""

    query: Query
    k: int = 10
    where: str | None = None
    mode: str = "vector"
    group_by: str | None = None
    find: str = "neighbours"
    label: str | None = None

    def check(self) -> None:
        """Check all arguments, and that they go together, without the tables.

        Raises:
            UserError: naming the argument, and the choices where there are some.
        """
        require_choice("mode", self.mode, MODES)
        require_choice("find", self.find, FINDS)
        if self.group_by is not None:
            require_choice("group_by", self.group_by, GROUPS)
        if self.label is not None:
            require_text("label", self.label, "cat")
        if self.where is not None:
            check_filter(self.where)
        require_number("k", self.k, 1, _MOST_HITS)
        check_query(self.query, self.mode)
        if self.find != "neighbours" and self.mode != "vector":
            raise UserError(
                f"{self.find} are defined by distances of vectors: search them by mode 'vector' alone"
            )

    @property
    def group_column(self) -> str | None:
        """Column whose values are groups; None when every hit counts for itself."""
        return GROUPS.get(self.group_by or "")


@dataclass(frozen=True)
class _Target:
    """A pinned table that is searched."""

    pin: Pin
    pinned: PinnedTable
    table: lance.LanceDataset

    @property
    def dataset_version(self) -> str:
        return self.pin.dataset_version


class Search:
    """A search over the pinned tables of one embedder. See `FeatureStore.search` for the arguments."""

    def __init__(
        self, tables: FeatureTables, encoder: QueryEncoder, pins: list[Pin], embedder: str | None
    ) -> None:
        self.encoder = encoder
        self.targets = [
            _Target(pin, pinned, tables.table(pinned)) for pin in pins for pinned in [pin.table(embedder)]
        ]
        self.spaces = ", ".join(sorted({table.name for pin in pins for table in pin.tables}))

    def run(self, request: SearchRequest) -> pa.Table:
        """Return the hits, best first.

        Raises:
            UserError: as `FeatureStore.search`.
        """
        request.check()
        filters = self._filters(request)
        depth = request.k * (FUSION_DEPTH if request.mode == "hybrid" else 1)
        lists = [
            self._merge_tables(ranking, depth, filters, request.group_column)
            for ranking in self._rankings(request)
        ]
        hits = lists[0] if len(lists) == 1 else _fuse(lists, request.group_column or "feature_id")
        if request.find == "duplicates":
            hits = [hit for hit in hits if hit["score"] >= DUPLICATE_SCORE]
        return _table(hits[: request.k])

    def _rankings(self, request: SearchRequest) -> list[Ranking]:
        """Return the rankings of the request's mode: by vectors, by words, or both."""
        rankings: list[Ranking] = []
        if request.mode in ("vector", "hybrid"):
            self._require_one_space()
            vector = self._vector(request.query)
            rankings.append(lambda target, limit, where: _search_vectors(target, vector, limit, where))
        if request.mode in ("text", "hybrid"):
            words = self._words(request.query)
            rankings.append(lambda target, limit, where: _search_words(target, words, limit, where))
        return rankings

    def _require_one_space(self) -> None:
        """Check that all tables use one space, since scores of different spaces are not comparable."""
        first = self.targets[0].pinned
        others = [target.pinned for target in self.targets if target.pinned.space != first.space]
        if others:
            named = ", ".join(f"{table.table} ({table.space})" for table in others)
            raise UserError(
                f"{first.table} uses space {first.space}, but others use: {named}; "
                "search them separately, or choose one embedder"
            )

    def _row(self, identifier: str, columns: list[str]) -> dict[str, Any]:
        return require_row([target.table for target in self.targets], identifier, columns)

    def _vector(self, query: Query) -> np.ndarray[Any, Any]:
        if identifier := identifier_of(query):
            return np.asarray(self._row(identifier, ["vector"])["vector"], dtype=np.float32)
        return self.encoder.vector(query, self.targets[0].pinned, self.spaces)

    def _words(self, query: Query) -> str:
        if identifier := identifier_of(query):
            text = self._row(identifier, ["text"])["text"]
            if not text:
                raise UserError(f"{identifier} has no text; search by its vector")
            return str(text)
        if not isinstance(query, str):
            raise UserError("mode 'text' takes a text or an id; search media and vectors by mode 'vector'")
        if not query.strip():
            raise UserError("the query is empty")
        return query

    def _filters(self, request: SearchRequest) -> list[str | None]:
        """Return the request's filter for each table, narrowed to what it finds, without the query's sample.

        A version may have a label of its own for the query's sample, which counts in its table.
        """
        identifier = identifier_of(request.query) if request.find != "neighbours" else ""
        row = self._row(identifier, ["sample_id"]) if identifier else {}
        own = [
            find_row([target.table], identifier, ["label"]) if identifier else None for target in self.targets
        ]
        labels = [found["label"] if found else None for found in own]
        # A version without a label of the sample goes by that of another one.
        known = next(filter(None, labels), None)
        return [
            self._narrow(request, row.get("sample_id"), request.label or label or known) for label in labels
        ]

    @staticmethod
    def _narrow(request: SearchRequest, sample: str | None, label: str | None) -> str | None:
        """Return the request's filter without a sample and, for hard negatives, without a label."""
        conditions = [f"sample_id <> {sql.literal(sample)}"] if sample else []
        if request.find == "hard_negatives":
            if not label:
                raise UserError(
                    "hard negatives are near and of another label: give the label of the query, "
                    "or an id whose sample has one"
                )
            conditions.append(f"label IS NOT NULL AND label <> {sql.literal(label)}")
        return join_conditions(request.where, *conditions)

    def _merge_tables(
        self, ranking: Ranking, k: int, filters: list[str | None], column: str | None
    ) -> list[Hit]:
        """Return the k best hits of all tables by score; a feature of two versions is a hit of each.

        So is a group of two versions: each has labels and splits of its own.
        """
        hits = [
            hit
            for target, where in zip(self.targets, filters, strict=True)
            for hit in (
                _best_of_groups(ranking, target, k, where, column) if column else ranking(target, k, where)
            )
        ]
        hits.sort(key=_order)
        return (_first_of_groups(hits, column) if column else hits)[:k]


def _search_vectors(
    target: _Target, vector: np.ndarray[Any, Any], limit: int, where: str | None
) -> list[Hit]:
    """Rank a table's rows by cosine similarity."""
    rows = _run(
        partial(vector_indexes.neighbour_query, target.table, vector, target.pinned.index, limit),
        where,
        target,
    )
    return [_hit(target, row, 1.0 - row["_distance"]) for row in rows]


def _search_words(target: _Target, words: str, limit: int, where: str | None) -> list[Hit]:
    """Rank a table's rows by BM25."""
    rows = _run(partial(vector_indexes.word_query, target.table, words, limit), where, target)
    return [_hit(target, row, row["_score"]) for row in rows]


def _run(query: Callable[..., Any], where: str | None, target: _Target) -> list[dict[str, Any]]:
    """Return the rows of a query of some columns under a filter, which is planned as the query is made."""
    with filter_errors(where, lambda: target.table.schema.names):
        rows: list[dict[str, Any]] = query(_READ, where).to_table().to_pylist()
    return rows


def _hit(target: _Target, row: dict[str, Any], score: float) -> Hit:
    return {
        **{name: row[name] for name in _READ},
        "score": float(score),
        "dataset_version": target.dataset_version,
    }


def _best_of_groups(ranking: Ranking, target: _Target, k: int, where: str | None, column: str) -> list[Hit]:
    """Return the best hit of each of the k best groups.

    The filter of the next round excludes the groups that have a hit, so that a group of ten thousand segments
    takes as many rounds as one of two.
    """
    best: list[Hit] = []
    while len(best) < k:
        excluded = sql.literals(hit[column] for hit in best)
        conditions = [f"{column} NOT IN ({excluded})"] if excluded else []
        limit = 2 * (k - len(best))
        hits = ranking(target, limit, join_conditions(where, *conditions))
        best += _first_of_groups(hits, column)
        if len(hits) < limit:
            break
    return best[:k]


def _first_of_groups(hits: Iterable[Hit], column: str) -> list[Hit]:
    firsts: dict[tuple[str, str], Hit] = {}
    for hit in hits:
        firsts.setdefault((hit[column], hit["dataset_version"]), hit)
    return list(firsts.values())


def _fuse(lists: list[list[Hit]], column: str) -> list[Hit]:
    """Fuse ranked lists by reciprocal rank over `column`."""
    # Not LanceDB's RRFReranker: it fuses the two result lists of one table, and these are merged from several
    # tables.
    fused: dict[tuple[str, str], Hit] = {}
    for hits in lists:
        for rank, hit in enumerate(hits, 1):
            key = (hit[column], hit["dataset_version"])
            fused.setdefault(key, {**hit, "score": 0.0})["score"] += 1 / (RANK_CONSTANT + rank)
    return sorted(fused.values(), key=_order)


def _order(hit: Hit) -> tuple[float, str, str]:
    """Sort key of hits: best first, ties by id."""
    return -hit["score"], hit["feature_id"], hit["dataset_version"]


def _table(hits: list[Hit]) -> pa.Table:
    schema = pa.schema(
        [
            *((name, pa.string()) for name in _READ),
            ("score", pa.float64()),
            ("dataset_version", pa.string()),
        ]
    )
    return pa.Table.from_pylist(hits, schema=schema)
