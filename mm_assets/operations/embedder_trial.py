"""Try an embedder on a sample of a published cell and compare it with the current one."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from mm_embed_kernels import sql
from mm_embed_kernels.contracts.features import vectors_of
from mm_embed_kernels.errors import UserError
from mm_embed_kernels.modalities import get
from mm_embed_kernels.sandbox.sandbox import Limits
from mm_resources.catalog import Catalog
from mm_resources.cell import Cell
from mm_resources.compute.cache import inputs_of
from mm_resources.compute.runner import KernelRunner
from mm_resources.registry.pins import PinnedTable
from mm_resources.registry.spec_check import check_embedders
from mm_resources.resources import default_embedder

# Segments whose neighbours are reported, and neighbours of each.
QUERIES, NEIGHBOURS = 5, 3

# The same sample in each trial: the first segments by id, which is a hash.
_SAMPLE = """
SELECT {key} AS key, s.content_hash, s.span, b.path, b."offset", b.size, s.text, s.segment_id
FROM segments s JOIN blobs b USING (content_hash) WHERE {readable} ORDER BY s.segment_id LIMIT {sample}
"""
_VECTORS = """
SELECT r.segment_id, v.vector
FROM requests r JOIN (SELECT * FROM cached WHERE status = 'ok') v USING (key) ORDER BY r.segment_id
"""
_JOINED = """
SELECT t.segment_id, t.vector AS tried, p.vector AS current, p.key, p.label
FROM tried t JOIN published p USING (segment_id) ORDER BY t.segment_id
"""


@dataclass(frozen=True)
class Neighbours:
    """The nearest neighbours of one segment by two embedders: labels and keys, the nearest first."""

    of: str
    current: list[str]
    tried: list[str]


@dataclass(frozen=True)
class Trial:
    """The measurements of a trial.

    Attributes:
        sample, computed, failed: segments drawn, computed now (the others were cached), and failed.
        seconds_per_segment: of those computed now; None when all were cached.
        cell_segments: segments of the cell that the embedder reads.
        overlap: mean share of nearest neighbours that both embedders have in common.
    """

    embedder: str
    current: str
    sample: int
    computed: int
    failed: int
    seconds_per_segment: float | None
    cell_segments: int
    overlap: float
    neighbours: list[Neighbours]

    @property
    def cell_seconds(self) -> float | None:
        """Estimated seconds for the whole cell."""
        return None if self.seconds_per_segment is None else self.seconds_per_segment * self.cell_segments


def try_embedder(catalog: Catalog, cell: Cell, name: str, sample: int) -> Trial:
    """Run an embedder on a sample of a published cell's segments and compare neighbours.

    Raises:
        UserError: when nothing is published, or the embedder cannot read the modality.
    """
    pin = catalog.registry.published_pin(cell.dataset_version, cell.modality)
    current = pin.primary
    check_embedders(cell.modality, [current.embedder, name] if name != current.embedder else [name])
    resource, tables = default_embedder(get(cell.modality)), catalog.tables
    embedder = resource.open(name)
    kernel = resource.kernel(catalog.blobs, Limits(), embedder)
    inputs = inputs_of(embedder)

    def stage(asset: str) -> pa.RecordBatchReader:
        return tables.read(asset, cell, at=pin.place(asset))

    requests = sql.fetch(
        _SAMPLE.format(**inputs, sample=sample), segments=stage("segments"), blobs=stage("content_blobs")
    )
    if requests.num_rows < 2:
        there = f"{cell.partition_key} has {requests.num_rows} segments that {name} reads"
        raise UserError(f"{there}; a trial needs at least 2")
    total = sql.fetch(
        f"SELECT count(*) AS n FROM segments WHERE {inputs['readable']}", segments=stage("segments")
    )["n"][0].as_py()
    compute = KernelRunner(catalog.cache, mode="inline")
    # Loads the model outside of the measured time.
    for part in kernel.stages():
        part.setup()
    began = time.perf_counter()
    report = compute.run(kernel, requests.drop(["segment_id"]))
    seconds = (time.perf_counter() - began) / report.computed if report.computed else None
    tried = sql.fetch(_VECTORS, requests=requests, cached=compute.cache.space(kernel).reader())
    overlap, neighbours = _compare(catalog, current, tried)
    return Trial(
        name,
        current.embedder,
        requests.num_rows,
        report.computed,
        report.failed,
        seconds,
        int(total),
        overlap,
        neighbours,
    )


def _compare(catalog: Catalog, current: PinnedTable, tried: pa.Table) -> tuple[float, list[Neighbours]]:
    """Compare nearest neighbours inside the sample, by the tried vectors and by the published ones.

    Args:
        tried: ``segment_id`` and ``vector``.

    Returns:
        The overlap, see `Trial`, and the neighbours of a few segments.
    """
    scan = catalog.features.dataset(current.table, current.lance_version).scanner(
        columns=["segment_id", "key", "label", "vector"]
    )
    joined = sql.fetch(_JOINED, tried=tried, published=scan.to_reader())
    if joined.num_rows < 2:
        return 0.0, []
    near = {name: _nearest_rows(vectors_of(joined[name])) for name in ("current", "tried")}
    same = [len(set(a) & set(b)) / len(a) for a, b in zip(near["current"], near["tried"], strict=True)]
    names = [
        f"{label}: {key}" if label else key
        for key, label in zip(joined["key"].to_pylist(), joined["label"].to_pylist(), strict=True)
    ]
    neighbours = [
        Neighbours(names[i], [names[j] for j in near["current"][i]], [names[j] for j in near["tried"][i]])
        for i in np.linspace(0, joined.num_rows - 1, min(QUERIES, joined.num_rows)).astype(int)
    ]
    return float(np.mean(same)), neighbours


def _nearest_rows(vectors: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return the rows of the nearest other vectors by cosine, best first.

    Args:
        vectors: [n, dimension], of unit norm.

    Returns:
        int [n, at most NEIGHBOURS].
    """
    scores = vectors @ vectors.T
    np.fill_diagonal(scores, -np.inf)
    return np.argsort(-scores, axis=1)[:, : min(NEIGHBOURS, len(vectors) - 1)]
