"""Semantic duplicates: samples with nearly equal vectors that no rule has grouped as duplicates.

After Abbas et al., "SemDeDup: data-efficient learning at web-scale through semantic deduplication" (2023), on
a sample of the vectors and through the table's own index. The pairs are reported for review; nothing is
dropped.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from mm_embed_kernels.contracts.features import vectors_of
from mm_resources.catalog import Catalog
from mm_resources.features.vector_indexes import EXACT, exact_neighbours, neighbour_query
from mm_resources.storage.row_ids import take_rows

if TYPE_CHECKING:
    import lance

# Cosine similarity from which two vectors count as duplicates; vectors that are checked, and neighbours of
# each.
MIN_SIMILARITY, CHECKED, NEIGHBOURS = 0.97, 200, 8
_COLUMNS = ["sample_id", "duplicate_group", "span"]
# A row without its vector, and its cosine similarity to the query.
Neighbour = tuple[dict[str, Any], float]


@dataclass(frozen=True)
class Pair:
    """Two samples with nearly equal vectors.

    Attributes:
        a, b: ids of the samples, sorted.
        score: cosine similarity.
        span_a, span_b: the part of each sample that the vector is of.
    """

    a: str
    b: str
    score: float
    span_a: str
    span_b: str


@dataclass(frozen=True)
class SemanticDuplicates:
    """Semantic duplicates among the checked vectors of a table.

    Attributes:
        checked: number of vectors whose neighbours were searched.
        samples: number of samples among them that have a semantic duplicate.
        pairs: pairs of samples, each once, the closest first.
    """

    checked: int
    samples: int
    pairs: list[Pair]


def find_semantic_duplicates(
    catalog: Catalog,
    table: str,
    version: int,
    index: str,
    min_similarity: float = MIN_SIMILARITY,
    checked: int = CHECKED,
) -> SemanticDuplicates:
    """Search the neighbours of a sample of vectors of a feature table; the same sample each time.

    Args:
        table, version, index: name, Lance version and index type of the table, as in its pin.
        min_similarity: cosine similarity from which two vectors count as duplicates.
        checked: number of vectors to check.
    """
    dataset = catalog.features.dataset(table, version)
    rows = dataset.count_rows()
    chosen = np.random.default_rng(0).choice(rows, size=min(checked, rows), replace=False)
    queries = dataset.take(sorted(chosen.tolist()), columns=[*_COLUMNS, "vector"])
    neighbours = _neighbours(dataset, index, vectors_of(queries), min_similarity)
    pairs: dict[tuple[str, str], Pair] = {}
    samples: set[str] = set()
    for row, near in zip(queries.drop(["vector"]).to_pylist(), neighbours, strict=True):
        for other, score in near:
            if score < min_similarity or _is_known(row, other):
                continue
            samples.add(row["sample_id"])
            pair = _pair(row, other, score)
            known = pairs.get((pair.a, pair.b))
            if known is None or known.score < score:
                pairs[pair.a, pair.b] = pair
    return SemanticDuplicates(
        len(chosen), len(samples), sorted(pairs.values(), key=lambda pair: (-pair.score, pair.a, pair.b))
    )


def _is_known(row: dict[str, Any], other: dict[str, Any]) -> bool:
    """Return whether two rows are of one sample, or of one group of duplicates."""
    group = row["duplicate_group"]
    return row["sample_id"] == other["sample_id"] or (group is not None and group == other["duplicate_group"])


def _pair(row: dict[str, Any], other: dict[str, Any], score: float) -> Pair:
    (a, span_a), (b, span_b) = sorted((each["sample_id"], each["span"]) for each in (row, other))
    return Pair(a, b, score, span_a, span_b)


def _neighbours(
    dataset: lance.LanceDataset,
    index: str,
    queries: np.ndarray[Any, Any],
    min_similarity: float,
) -> Iterator[list[Neighbour]]:
    """Yield the nearest rows of each query; a table without an index is scanned once for all queries."""
    if index == EXACT:
        scores, row_ids = exact_neighbours(dataset, queries, NEIGHBOURS + 1)
        near = sorted({int(row_id) for row_id in row_ids[scores >= min_similarity]})
        rows = dict(zip(near, take_rows(dataset, near, _COLUMNS).to_pylist(), strict=True))
        for ids, values in zip(row_ids.tolist(), scores.tolist(), strict=True):
            yield [(rows[row_id], score) for row_id, score in zip(ids, values, strict=True) if row_id in rows]
        return
    for query in queries:
        hits: pa.Table = neighbour_query(dataset, query, index, NEIGHBOURS + 1, _COLUMNS).to_table()
        yield [(row, 1.0 - row["_distance"]) for row in hits.to_pylist()]
