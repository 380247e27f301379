"""Indexes of feature tables: which index a table gets, how it is built and queried, and its recall."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mm_embed_kernels.contracts.features import vectors_of
from mm_embed_kernels.kernels.isolated_stage import close_models
from mm_resources.storage import lance_datasets
from mm_resources.storage.lance_errors import CommitConflict, Fenced, commit_conflicts

if TYPE_CHECKING:
    import lance
    from lancedb.table import Table

Vectors = np.ndarray[Any, np.dtype[np.float32]]

# Below this many rows an exact search takes milliseconds and has recall 1.
EXACT_ROWS = 50_000
# Up to this many rows the index is a graph (HNSW), the fastest to search; building it takes memory for all of
# its codes and edges. Above, it is inverted lists alone, built in seconds, in memory that does not grow with
# the table.
GRAPH_ROWS = 250_000
PARTITION_ROWS = 50_000
EXACT, GRAPH, LISTS = "exact", "IVF_HNSW_SQ", "IVF_SQ"
# Columns that readers filter by, indexed where the vectors are: at 120,000 rows a sample is found in 0.6 ms
# instead of 4.1, a label is counted in 0.2 ms instead of 2.8, a filtered search takes 0.8 of its time, for
# 0.1 s of CPU and 2% of the table's bytes. Below, a scan takes as little.
SORTED_COLUMNS, BITMAP_COLUMNS = ("feature_id", "sample_id"), ("label", "split")
# Index type -> lists that a query probes, before the candidates are ranked by the vectors themselves.
PROBES = {GRAPH: 64, LISTS: 128}
REFINE_FACTOR = 10
# A filter that one row in a hundred passes, in any table: ids are hashes.
_RARE = "feature_id < '028f'"
_QUERIES, _NEIGHBOURS = 100, 10
# Recall@10 below which nothing is published.
MIN_RECALL = 0.95
# Difference between two float32 sums of one cosine.
_TIE = 1e-5


class Recall(NamedTuple):
    """recall@10 of an index against exact search, over all rows and under a filter that few rows pass."""

    plain: float
    filtered: float


def index_for(rows: int) -> str:
    """Return the index type of a table with so many rows."""
    if rows < EXACT_ROWS:
        return EXACT
    return GRAPH if rows <= GRAPH_ROWS else LISTS


def build(table: Table, version: int, index: str, texts: bool) -> int:
    """Build the indexes of a table on top of `version`; return the version that holds them.

    A table with an index of its vectors gets those of `SORTED_COLUMNS` and `BITMAP_COLUMNS`, too.

    Args:
        index: type of the vector index, see `index_for`.
        texts: whether to index the column ``text`` for full-text search, by stem, so that "runs" matches
            "running".

    Raises:
        Fenced: when another run has written the table since.
    """
    from lancedb.index import FTS, Bitmap, BTree, HnswSq, IvfSq

    if index != EXACT:
        close_models()  # building takes the memory; a small table leaves the model loaded for the next cell
    fenced = Fenced(
        f"{table.name} was rewritten by another run before it was indexed; run the same command again"
    )
    if table.version != version:
        raise fenced
    graph = HnswSq(distance_type="cosine", target_partition_size=PARTITION_ROWS)
    try:
        with commit_conflicts():
            if index != EXACT:
                table.create_index(
                    "vector", config=graph if index == GRAPH else IvfSq(distance_type="cosine")
                )
                for columns, config in ((SORTED_COLUMNS, BTree()), (BITMAP_COLUMNS, Bitmap())):
                    for column in columns:
                        if column in table.schema.names:
                            table.create_index(column, config=config)
            if texts:
                table.create_index("text", config=FTS(language="English", stem=True, remove_stop_words=False))
    except CommitConflict:
        raise fenced from None
    return int(table.version)


def neighbour_query(
    table: lance.LanceDataset,
    vector: np.ndarray[Any, Any],
    index: str,
    limit: int,
    columns: list[str],
    where: str | None = None,
) -> Any:
    """Return the scan of Lance for the nearest rows of a table, not yet run.

    Args:
        vector: float [dimension].
        index: type of the table's vector index.
        columns: columns of the result, which also has the cosine distance as ``_distance``.
        where: SQL that is applied before the search.
    """
    nearest: dict[str, Any] = {"column": "vector", "q": vector, "k": limit, "metric": "cosine"}
    if index in PROBES:
        nearest |= {"nprobes": PROBES[index], "refine_factor": REFINE_FACTOR}
    return table.scanner(columns=[*columns, "_distance"], nearest=nearest, filter=where, prefilter=True)


def word_query(
    table: lance.LanceDataset, words: str, limit: int, columns: list[str], where: str | None = None
) -> Any:
    """Return the scan of Lance for the rows whose ``text`` matches words best (BM25), not yet run.

    Args:
        words: plain text; quotes and operators in it have no meaning.
        columns: columns of the result, which also has the score as ``_score``.
        where: SQL that is applied before the search.
    """
    from lance.query import MatchQuery

    return table.scanner(
        columns=[*columns, "_score"],
        full_text_query=MatchQuery(words, "text"),
        limit=limit,
        filter=where,
        prefilter=True,
    )


def exact_neighbours(
    dataset: lance.LanceDataset, vectors: Vectors, limit: int, where: str | None = None
) -> tuple[Vectors, np.ndarray[Any, Any]]:
    """Compute the true neighbours of all queries in one scan of the table.

    Args:
        vectors: unit-norm queries, float32 [n, dimension], for unit-norm rows.
        where: SQL that a neighbour must pass.

    Returns:
        Cosine similarities, float32 [n, limit], best first, and row ids of the neighbours, int64 [n, limit];
        -inf and -1 where the table has fewer rows.
    """
    scores, row_ids = (
        np.full((len(vectors), limit), -np.inf, np.float32),
        np.full((len(vectors), limit), -1, np.int64),
    )
    for batch in lance_datasets.reader(dataset, dataset.schema, ["vector"], where, row_ids=True):
        if batch.num_rows == 0:
            continue
        scores = np.concatenate([scores, vectors @ vectors_of(batch).T], axis=1)
        own = np.broadcast_to(batch["_rowid"].to_numpy().astype(np.int64), (len(vectors), batch.num_rows))
        row_ids = np.concatenate([row_ids, own], axis=1)
        best = np.argpartition(-scores, limit - 1, axis=1)[:, :limit]
        scores, row_ids = np.take_along_axis(scores, best, 1), np.take_along_axis(row_ids, best, 1)
    order = np.argsort(-scores, axis=1, kind="stable")
    return np.take_along_axis(scores, order, 1), np.take_along_axis(row_ids, order, 1)


def measure_recall(table: lance.LanceDataset, vectors: Vectors, index: str) -> Recall:
    """Measure recall@10 of a table's index with `vectors` as queries, unit-norm, float32 [n, dimension]."""
    if index == EXACT:
        return Recall(1.0, 1.0)
    return Recall(
        *(
            _recall(table, vectors, index, exact_neighbours(table, vectors, _NEIGHBOURS, where)[0], where)
            for where in (None, _RARE)
        )
    )


def query_rows(rows: int) -> list[int]:
    """Return the rows whose vectors are the queries of `measure_recall`: the same ones each time, sorted."""
    chosen = np.random.default_rng(0).choice(rows, size=min(_QUERIES, rows), replace=False)
    return sorted(chosen.tolist())


def _recall(
    table: lance.LanceDataset, vectors: Vectors, index: str, truth: Vectors, where: str | None
) -> float:
    """Return the share of the true neighbours that the index returns; of equally near ones any counts."""
    expected = hits = 0
    for vector, scores in zip(vectors, truth, strict=True):
        scores = scores[np.isfinite(scores)]
        query = neighbour_query(table, vector, index, _NEIGHBOURS, ["feature_id"], where)
        distances = query.to_table()["_distance"].to_numpy()
        expected += len(scores)
        hits += int((1 - distances >= scores.min(initial=np.inf) - _TIE).sum())
    return hits / expected if expected else 1.0
