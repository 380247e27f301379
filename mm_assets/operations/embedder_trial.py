"""An embedder tried on a sample of a published cell, beside the one that is in use."""

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

# Rows whose neighbours are shown, and how many of them.
QUERIES, NEIGHBOURS = 5, 3

# A sample that is the same each time it is drawn: by the segments' ids, which are hashes.
_SAMPLE = """
SELECT {key} AS key, s.content_hash, s.span, b.path, b."offset", b.size, s.text, s.segment_id
FROM segments s JOIN blobs b USING (content_hash) WHERE {readable} ORDER BY s.segment_id LIMIT {sample}
"""
_VECTORS = """
SELECT w.segment_id, v.vector FROM wanted w JOIN (SELECT * FROM cached WHERE status = 'ok') v USING (key) ORDER BY w.segment_id
"""


@dataclass(frozen=True)
class Neighbours:
    """What lies nearest to one segment, by two embedders; labels and keys, best first."""

    of: str
    current: list[str]
    tried: list[str]


@dataclass(frozen=True)
class Trial:
    """What a trial measured.

    Attributes:
        sample, computed, failed: segments drawn, computed now (the others were in the cache), and refused.
        seconds_per_segment: of those computed now; None when all were in the cache.
        cell_segments: segments that a backfill would give to the embedder.
        overlap: mean share of the current embedder's nearest neighbours that are the tried one's too.
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
        return None if self.seconds_per_segment is None else self.seconds_per_segment * self.cell_segments


def try_embedder(catalog: Catalog, cell: Cell, name: str, sample: int) -> Trial:
    """Run an embedder on a sample of a published cell's segments and compare neighbours.

    Raises:
        UserError: when nothing is published, or the embedder cannot read the modality.
    """
    pin = catalog.registry.published(cell.dataset_version, cell.modality)
    current = pin.primary
    check_embedders(cell.modality, [current.embedder, name] if name != current.embedder else [name])
    resource, tables = default_embedder(get(cell.modality)), catalog.tables
    embedder = resource.open(name)
    kernel = resource.kernel(catalog.blobs, Limits(), embedder)
    inputs = inputs_of(embedder)

    def stage(asset: str) -> pa.RecordBatchReader:
        return tables.read(asset, cell, version=pin.stages[asset]["lance_version"])

    wanted = sql.fetch(
        _SAMPLE.format(**inputs, sample=sample), segments=stage("segments"), blobs=stage("content_blobs")
    )
    if wanted.num_rows < 2:
        raise UserError(
            f"{cell.partition_key} has {wanted.num_rows} segments that {name} reads; a trial needs at least 2"
        )
    total = sql.fetch(
        f"SELECT count(*) AS n FROM segments WHERE {inputs['readable']}", segments=stage("segments")
    )["n"][0].as_py()
    compute = KernelRunner(catalog.cache, mode="inline")
    for part in kernel.stages():  # loading the model is no part of the rate
        part.setup()
    began = time.perf_counter()
    report = compute.run(kernel, wanted.drop(["segment_id"]))
    seconds = (time.perf_counter() - began) / report.computed if report.computed else None
    found = sql.fetch(_VECTORS, wanted=wanted, cached=compute.cache.space(kernel).reader())
    overlap, neighbours = _compare(catalog, current, found)
    return Trial(
        name,
        current.embedder,
        wanted.num_rows,
        report.computed,
        report.failed,
        seconds,
        int(total),
        overlap,
        neighbours,
    )


def _compare(catalog: Catalog, current: PinnedTable, found: pa.Table) -> tuple[float, list[Neighbours]]:
    """Nearest neighbours inside the sample, by the vectors in `found` and by those of the published table."""
    scan = catalog.features.dataset(current.table, current.lance_version).scanner(
        columns=["segment_id", "key", "label", "vector"]
    )
    joined = sql.fetch(
        "SELECT f.segment_id, f.vector AS tried, t.vector AS current, t.key, t.label FROM found f JOIN published t USING (segment_id) "
        "ORDER BY f.segment_id",
        found=found,
        published=scan.to_reader(),
    )
    if joined.num_rows < 2:
        return 0.0, []
    near = {name: _nearest(vectors_of(joined[name])) for name in ("current", "tried")}
    same = [len(set(a) & set(b)) / len(a) for a, b in zip(near["current"], near["tried"], strict=True)]
    named = [
        f"{label}: {key}" if label else key
        for key, label in zip(joined["key"].to_pylist(), joined["label"].to_pylist(), strict=True)
    ]
    shown = [
        Neighbours(named[i], [named[j] for j in near["current"][i]], [named[j] for j in near["tried"][i]])
        for i in np.linspace(0, joined.num_rows - 1, min(QUERIES, joined.num_rows)).astype(int)
    ]
    return float(np.mean(same)), shown


def _nearest(vectors: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Rows of the nearest others by cosine, [n, at most NEIGHBOURS]; the vectors have unit norm."""
    scores = vectors @ vectors.T
    np.fill_diagonal(scores, -np.inf)
    return np.argsort(-scores, axis=1)[:, : min(NEIGHBOURS, len(vectors) - 1)]
