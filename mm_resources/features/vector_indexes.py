"""Indexes of feature tables: which one a table gets, how it is asked, and how much of the truth it finds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mm_embed_kernels.kernels.isolated_stage import release
from mm_resources.storage import lance_datasets

if TYPE_CHECKING:
    import lance
    from lancedb.table import Table

Vectors = np.ndarray[Any, np.dtype[np.float32]]

# Below this many rows an exact search takes milliseconds and has recall 1.
EXACT_ROWS = 50_000
# Up to this many rows the index is a graph (HNSW), the fastest to search; to build it, its codes and edges lie in memory. Above,
# it is inverted lists alone, built in seconds out of memory that does not follow the table.
GRAPH_ROWS = 250_000
PARTITION_ROWS = 50_000
EXACT, GRAPH, LISTS = "exact", "IVF_HNSW_SQ", "IVF_SQ"
# Index type -> lists that a query looks into, before what it finds is ranked by the vectors themselves.
PROBES = {GRAPH: 64, LISTS: 128}
REFINED = 10
# A filter as rare as one row in a hundred, whatever the table holds: ids are hashes.
_RARE = "feature_id < '028f'"
_QUERIES, _RECALLED = 100, 10
# What float32 makes of one cosine in two ways of summing it.
_TIE = 1e-5


class Recall(NamedTuple):
    """recall@10 of an index against exact search, over all rows and under a filter that few rows meet."""

    plain: float
    filtered: float


def index_for(rows: int) -> str:
    """The kind of search that a table of so many rows gets."""
    if rows < EXACT_ROWS:
        return EXACT
    return GRAPH if rows <= GRAPH_ROWS else LISTS


def build(table: Table, version: int, index: str, texts: bool) -> int:
    """Index what `version` of a table holds; the version that holds the indexes too.

    Args:
        index: of the vectors, see `index_for`.
        texts: whether words are looked for in the column ``text``: by stem, so that runs finds running.

    Raises:
        Fenced: when another run wrote the table since.
    """
    from lancedb.index import FTS, HnswSq, IvfSq

    release()
    fenced = lance_datasets.Fenced(f"{table.name} was rewritten by another run before it was indexed")
    if table.version != version:
        raise fenced
    graph = HnswSq(distance_type="cosine", target_partition_size=PARTITION_ROWS)
    try:
        if index != EXACT:
            table.create_index("vector", config=graph if index == GRAPH else IvfSq(distance_type="cosine"))
        if texts:
            table.create_index("text", config=FTS(language="English", stem=True, remove_stop_words=False))
    except RuntimeError as error:
        if "Incompatible transaction" not in str(error):
            raise
        raise fenced from None
    return int(table.version)


def nearest(
    table: Table,
    vector: np.ndarray[Any, Any],
    index: str,
    limit: int,
    columns: list[str],
    where: str | None = None,
) -> Any:
    """The request for the nearest rows of a table, filtered before the search; they bring ``_distance``, of cosine."""
    request = (
        table.search(vector, vector_column_name="vector")
        .distance_type("cosine")
        .limit(limit)
        .select([*columns, "_distance"])
    )
    if index in PROBES:
        request = request.nprobes(PROBES[index]).refine_factor(REFINED)
    return request.where(where, prefilter=True) if where else request


def exact(
    dataset: lance.LanceDataset, vectors: Vectors, limit: int, where: str | None = None
) -> tuple[Vectors, np.ndarray[Any, Any]]:
    """The true neighbours of all queries at once: one scan, instead of one for each.

    Args:
        vectors: unit-norm queries, float32 [n, dimension], of unit-norm rows.
        where: SQL that a neighbour must meet.

    Returns:
        Cosine similarities, float32 [n, limit], best first, and the places (row ids) of the neighbours, int64 [n, limit];
        -inf and -1 where the table has fewer.
    """
    scores, places = (
        np.full((len(vectors), limit), -np.inf, np.float32),
        np.full((len(vectors), limit), -1, np.int64),
    )
    for batch in lance_datasets.reader(dataset, dataset.schema, ["vector"], where, row_ids=True):
        if batch.num_rows == 0:
            continue
        rows = batch["vector"].flatten().to_numpy().reshape(batch.num_rows, -1)
        scores = np.concatenate([scores, vectors @ rows.T], axis=1)
        known = np.broadcast_to(batch["_rowid"].to_numpy().astype(np.int64), (len(vectors), batch.num_rows))
        places = np.concatenate([places, known], axis=1)
        best = np.argpartition(-scores, limit - 1, axis=1)[:, :limit]
        scores, places = np.take_along_axis(scores, best, 1), np.take_along_axis(places, best, 1)
    order = np.argsort(-scores, axis=1, kind="stable")
    return np.take_along_axis(scores, order, 1), np.take_along_axis(places, order, 1)


def measure(table: Table, dataset: lance.LanceDataset, vectors: Vectors, index: str) -> Recall:
    """How much of what exact search finds for `vectors` [n, dimension] the index finds too; both are of one version."""
    if index == EXACT:
        return Recall(1.0, 1.0)
    return Recall(
        *(
            _share(table, vectors, index, exact(dataset, vectors, _RECALLED, where)[0], where)
            for where in (None, _RARE)
        )
    )


def sample_of(rows: int) -> list[int]:
    """Rows whose vectors are the queries of `measure`, the same ones each time."""
    chosen = np.random.default_rng(0).choice(rows, size=min(_QUERIES, rows), replace=False)
    return sorted(chosen.tolist())


def _share(table: Table, vectors: Vectors, index: str, truth: Vectors, where: str | None) -> float:
    """Of the true neighbours, how many the index finds; of several that are equally near to the query, any will do."""
    found = hits = 0
    for vector, scores in zip(vectors, truth, strict=True):
        scores = scores[np.isfinite(scores)]
        near = (
            nearest(table, vector, index, _RECALLED, ["feature_id"], where).to_arrow()["_distance"].to_numpy()
        )
        found += len(scores)
        hits += int((1 - near >= scores.min(initial=np.inf) - _TIE).sum())
    return hits / found if found else 1.0
