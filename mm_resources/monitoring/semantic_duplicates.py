"""The semantic pass: samples whose vectors all but coincide although no rule has found them alike, for the next version to look at.

After Abbas et al., "SemDeDup: data-efficient learning at web-scale through semantic deduplication" (2023), on a sample of
the vectors and by the table's own index: it reports, and decides nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from mm_embed_kernels.contracts.features import vectors_of
from mm_resources.catalog import Catalog
from mm_resources.features import vector_indexes
from mm_resources.features.vector_indexes import exact, nearest

if TYPE_CHECKING:
    import lance

# Cosine similarity from which two vectors count as alike; how many vectors are looked at, and their neighbours.
LEAST, LOOKED_AT, NEIGHBOURS = 0.97, 200, 8
_COLUMNS = ["sample_id", "duplicate_group", "span", "vector"]


@dataclass(frozen=True)
class Pair:
    """Two samples that are alike: cosine similarity, and the place in each that is."""

    a: str
    b: str
    score: float
    span_a: str
    span_b: str


@dataclass(frozen=True)
class Alike:
    """What was found.

    Attributes:
        looked_at: vectors whose neighbours were asked for.
        samples: of theirs, those with a neighbour that is alike and in no group of duplicates with them.
        pairs: of samples, each once, the closest first.
    """

    looked_at: int
    samples: int
    pairs: list[Pair]


def alike(
    catalog: Catalog,
    table: str,
    version: int,
    index: str,
    least: float = LEAST,
    looked_at: int = LOOKED_AT,
) -> Alike:
    """Look at a feature table; the same vectors each time.

    Args:
        table, version, index: as a pin names them.
    """
    dataset = catalog.features.dataset(table, version)
    rows = dataset.count_rows()
    chosen = np.random.default_rng(0).choice(rows, size=min(looked_at, rows), replace=False)
    sampled = dataset.take(sorted(chosen.tolist()), columns=_COLUMNS)
    found: dict[tuple[str, str], Pair] = {}
    asked: set[str] = set()
    for own, others in zip(
        sampled.drop(["vector"]).to_pylist(),
        _neighbours(catalog, dataset, table, index, sampled["vector"], least),
        strict=True,
    ):
        for other, score in others:
            known = own["duplicate_group"] is not None and own["duplicate_group"] == other["duplicate_group"]
            if other["sample_id"] == own["sample_id"] or known or score < least:
                continue
            asked.add(own["sample_id"])
            (a, span_a), (b, span_b) = sorted(
                [(own["sample_id"], own["span"]), (other["sample_id"], other["span"])]
            )
            if (a, b) not in found or found[a, b].score < score:
                found[a, b] = Pair(a, b, score, span_a, span_b)
    return Alike(
        len(chosen), len(asked), sorted(found.values(), key=lambda pair: (-pair.score, pair.a, pair.b))
    )


def _neighbours(
    catalog: Catalog,
    dataset: lance.LanceDataset,
    table: str,
    index: str,
    vectors: pa.ChunkedArray,
    least: float,
) -> Iterator[list[tuple[dict[str, Any], float]]]:
    """Of each vector the nearest rows, without their vectors, and how near they are; a table without an index is scanned once for all."""
    queries = vectors_of(vectors)
    if index == vector_indexes.EXACT:
        scores, places = exact(dataset, queries, NEIGHBOURS + 1)
        near = sorted({int(place) for place in places[scores >= least]})
        rows = dict(zip(near, dataset._take_rows(near, columns=_COLUMNS[:3]).to_pylist(), strict=True))
        for mine in zip(places.tolist(), scores.tolist(), strict=True):
            yield [(rows[place], score) for place, score in zip(*mine, strict=True) if place in rows]
        return
    opened = catalog.features.database.open_table(table)
    opened.checkout(dataset.version)
    for query in queries:
        found = nearest(opened, query, index, NEIGHBOURS + 1, _COLUMNS[:3]).to_arrow().to_pylist()
        yield [(other, 1.0 - other["_distance"]) for other in found]
