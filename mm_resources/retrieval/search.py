"""Search over published feature tables: by vector, by words, or both; in one version, several, or all."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from mm_embed_kernels import sql
from mm_embed_kernels.errors import UserError
from mm_resources.features import vector_indexes
from mm_resources.registry.pins import Pin, PinnedTable
from mm_resources.retrieval.query_vectors import Query, QueryEncoder, stored

if TYPE_CHECKING:
    from lancedb.table import Table

    from mm_resources.features.feature_tables import FeatureTables

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
MODES = ("vector", "text", "hybrid")
FINDS = ("neighbours", "duplicates", "hard_negatives")
GROUPS = {"sample": "sample_id", "entity": "entity_id"}
# Cosine from which two samples are taken for the same thing.
DUPLICATE_SCORE = 0.95
# Reciprocal rank fusion (Cormack et al., SIGIR 2009): a list's hit of rank r counts 1 / (60 + r).
RANK_CONSTANT = 60
# How far down each of the two lists is read that are fused.
FUSED = 5
Hit = dict[str, Any]
# (table, how many, filter) -> hits with their score, best first.
Ranked = Callable[["_Target", int, str | None], list[Hit]]


@dataclass(frozen=True)
class _Target:
    """A pinned table that is searched."""

    pin: Pin
    pinned: PinnedTable
    table: Table

    @property
    def dataset_version(self) -> str:
        return f"{self.pin.dataset}@{self.pin.version}"


class Search:
    """One request over all the tables that it names. See `FeatureStore.search` for what it takes."""

    def __init__(
        self, tables: FeatureTables, encoder: QueryEncoder, pins: list[Pin], embedder: str | None
    ) -> None:
        self.encoder = encoder
        self.targets = [
            _Target(pin, pinned, tables.table(pinned)) for pin in pins for pinned in [pin.table(embedder)]
        ]
        self.spaces = ", ".join(sorted({table.named for pin in pins for table in pin.tables}))

    def run(
        self,
        query: Query,
        k: int,
        where: str | None,
        mode: str,
        group_by: str | None,
        find: str,
        label: str | None,
    ) -> pa.Table:
        """The hits, best first; raises `UserError` as `FeatureStore.search`."""
        _one_of("mode", mode, MODES)
        _one_of("find", find, FINDS)
        if group_by is not None:
            _one_of("group_by", group_by, GROUPS)
        if find != "neighbours" and mode != "vector":
            raise UserError(
                f"{find} are near in the space of the vectors, so they are found by mode 'vector' alone"
            )
        where, mode_hits = self._aimed(query, where, find, label), self._modes(query, mode)
        lists = [
            self._merged(ranked, k * (FUSED if mode == "hybrid" else 1), where, group_by)
            for ranked in mode_hits
        ]
        hits = lists[0] if len(lists) == 1 else _fused(lists, GROUPS.get(group_by or "", "feature_id"))
        if find == "duplicates":
            hits = [hit for hit in hits if hit["score"] >= DUPLICATE_SCORE]
        return _table(hits[:k])

    def _modes(self, query: Query, mode: str) -> list[Ranked]:
        found: list[Ranked] = []
        if mode in ("vector", "hybrid"):
            self._require_one_space()
            vector = self._vector(query)
            found.append(lambda target, limit, where: _near(target, vector, limit, where))
        if mode in ("text", "hybrid"):
            words = self._words(query)
            found.append(lambda target, limit, where: _worded(target, words, limit, where))
        return found

    def _require_one_space(self) -> None:
        """Scores of two spaces say nothing beside each other."""
        first = self.targets[0].pinned
        others = [target.pinned for target in self.targets if target.pinned.space != first.space]
        if others:
            named = ", ".join(f"{table.table} ({table.space})" for table in others)
            raise UserError(
                f"{first.table} lies in the space {first.space}, and of other spaces are: {named}; search them apart, or name one embedder"
            )

    def _vector(self, query: Query) -> np.ndarray[Any, Any]:
        if identifier := _identifier(query):
            row = stored(identifier, [target.table for target in self.targets], ["vector"])
            return np.asarray(row["vector"], dtype=np.float32)
        return self.encoder.vector(query, self.targets[0].pinned, self.spaces)

    def _words(self, query: Query) -> str:
        if identifier := _identifier(query):
            text = stored(identifier, [target.table for target in self.targets], ["text"])["text"]
            if not text:
                raise UserError(f"{identifier} has no text; search by its vector")
            return str(text)
        if not isinstance(query, str):
            raise UserError(
                "words are looked for by a text or an id; search media and vectors by mode 'vector'"
            )
        if not query.strip():
            raise UserError("the query is empty")
        return query

    def _aimed(self, query: Query, where: str | None, find: str, label: str | None) -> str | None:
        """The filter, narrowed to what is to be found; the query's own sample is none of its duplicates or negatives."""
        conditions = [f"({where})"] if where else []
        if find != "neighbours" and (identifier := _identifier(query)):
            row = stored(identifier, [target.table for target in self.targets], ["sample_id", "label"])
            conditions.append(f"sample_id <> {sql.literal(row['sample_id'])}")
            label = label or row["label"]
        if find == "hard_negatives":
            if not label:
                raise UserError(
                    "hard negatives are near and of another label: give the label of the query, or an id whose sample has one"
                )
            conditions.append(f"label IS NOT NULL AND label <> {sql.literal(label)}")
        return " AND ".join(conditions) or None

    def _merged(self, ranked: Ranked, k: int, where: str | None, group_by: str | None) -> list[Hit]:
        """The best of all tables by score; what two versions share counts once for each."""
        column = GROUPS.get(group_by or "")
        found = [
            hit
            for target in self.targets
            for hit in (_grouped(ranked, target, k, where, column) if column else ranked(target, k, where))
        ]
        found.sort(key=lambda hit: (-hit["score"], hit["feature_id"], hit["dataset_version"]))
        return (_firsts(found, column) if column else found)[:k]


def _near(target: _Target, vector: np.ndarray[Any, Any], limit: int, where: str | None) -> list[Hit]:
    request = vector_indexes.nearest(
        target.table, vector, target.pinned.index, limit, [*HIT, "key", "text"], where
    )
    return [_hit(target, row, 1.0 - row["_distance"]) for row in _rows(request, where)]


def _worded(target: _Target, words: str, limit: int, where: str | None) -> list[Hit]:
    from lancedb.query import MatchQuery

    # A query of its own kind: quotes and signs in it are words like others, not a syntax.
    request = (
        target.table.search(MatchQuery(words, "text"), query_type="fts")
        .limit(limit)
        .select([*HIT, "key", "text", "_score"])
    )
    if where:
        request = request.where(where, prefilter=True)
    return [_hit(target, row, row["_score"]) for row in _rows(request, where)]


def _rows(request: Any, where: str | None) -> list[dict[str, Any]]:
    try:
        found: list[dict[str, Any]] = request.to_arrow().to_pylist()
        return found
    except (ValueError, RuntimeError, OSError) as error:
        if where:
            raise UserError(
                f"the filter {where!r} does not work: {' '.join(str(error).split())[:300]}"
            ) from error
        raise


def _hit(target: _Target, row: dict[str, Any], score: float) -> Hit:
    return {
        **{name: row[name] for name in (*HIT, "key", "text")},
        "score": float(score),
        "dataset_version": target.dataset_version,
    }


def _grouped(ranked: Ranked, target: _Target, k: int, where: str | None, column: str) -> list[Hit]:
    """The best hit of each of the k best groups. A group that was found is left out of the next round by the filter, so
    that one of ten thousand segments costs no more than one of two.
    """
    best: list[Hit] = []
    while len(best) < k:
        seen = ", ".join(sql.literal(hit[column]) for hit in best)
        conditions = [f"({where})"] if where else []
        conditions += [f"{column} NOT IN ({seen})"] if seen else []
        limit = 2 * (k - len(best))
        found = ranked(target, limit, " AND ".join(conditions) or None)
        best += _firsts(found, column)
        if len(found) < limit:
            break
    return best[:k]


def _firsts(hits: Iterable[Hit], column: str) -> list[Hit]:
    firsts: dict[str, Hit] = {}
    for hit in hits:
        firsts.setdefault(hit[column], hit)
    return list(firsts.values())


def _fused(lists: list[list[Hit]], column: str) -> list[Hit]:
    """Ranked lists as one, by reciprocal rank fusion over `column`."""
    fused: dict[tuple[str, ...], Hit] = {}
    for hits in lists:
        for rank, hit in enumerate(hits, 1):
            place = (hit[column],) if column != "feature_id" else (hit[column], hit["dataset_version"])
            known = fused.setdefault(place, {**hit, "score": 0.0})
            known["score"] += 1 / (RANK_CONSTANT + rank)
    return sorted(fused.values(), key=lambda hit: (-hit["score"], hit["feature_id"], hit["dataset_version"]))


def _table(hits: list[Hit]) -> pa.Table:
    schema = pa.schema(
        [
            *((name, pa.string()) for name in (*HIT, "key", "text")),
            ("score", pa.float64()),
            ("dataset_version", pa.string()),
        ]
    )
    return pa.Table.from_pylist(hits, schema=schema)


def _identifier(query: Query) -> str:
    return query.removeprefix("id:") if isinstance(query, str) and query.startswith("id:") else ""


def _one_of(name: str, value: str, known: Iterable[str]) -> None:
    if value not in known:
        raise UserError(f"{name} {value!r}: there are: {', '.join(known)}")
