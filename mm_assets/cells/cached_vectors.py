"""Vectors of a cell in the compute cache: compute what is missing, and again what is damaged."""

from __future__ import annotations

from dataclasses import replace

import pyarrow as pa

from mm_assets.cells.cell_run import CellRun
from mm_embed_kernels import sql
from mm_embed_kernels.embedders import Embedder
from mm_resources.compute.cache import CachedVectors, inputs_of
from mm_resources.compute.cache_damage import drop_damaged_rows
from mm_resources.compute.retry_policy import NONE
from mm_resources.storage.spool import TableSpool

_REQUESTS = """
SELECT {key} AS key, s.content_hash, s.span, b.path, b."offset", b.size, s.text
FROM segments s JOIN blobs b USING (content_hash) WHERE {readable}
"""
_KEYS = "SELECT cache_key AS key FROM embeddings WHERE status = 'ok' AND embedder = {embedder}"
# Keys without a vector.
_LOST = "SELECT count(*) AS n FROM wanted ANTI JOIN vectors USING (key)"


def compute_vectors(run: CellRun, embedder: Embedder) -> None:
    """Run one embedder on the segments that the cache lacks."""
    statement = _REQUESTS.format(**inputs_of(embedder))
    with run.query(statement, segments=run.read("segments"), blobs=run.read("content_blobs")) as requests:
        run.compute(run.embed_kernel(embedder), requests)


def open_all_vectors(run: CellRun, embedder: Embedder) -> CachedVectors:
    """Return the cached vectors of an embedder, also in a run on the difference; see `open_vectors`."""
    if run.increment is None:
        return open_vectors(run, embedder)
    rows = run.read_all("embeddings", ["cache_key", "status", "embedder"])
    with run.query(_KEYS.format(embedder=sql.literal(embedder.name)), embeddings=rows) as found:
        return _open_complete(run, embedder, TableSpool.of(found))


def open_vectors_of(run: CellRun, embedder: Embedder, keys: pa.Array, most: int) -> CachedVectors:
    """Return the cached vectors of some distinct keys of the cell; for more than `most`, all of the cache."""
    few = keys if len(keys) <= most else None
    if run.increment is None:
        return run.cache_space(run.embed_kernel(embedder)).vectors(few)
    wanted = TableSpool.of(pa.table({"key": keys}).to_reader())
    return replace(_open_complete(run, embedder, wanted), keys=few)


def _open_complete(run: CellRun, embedder: Embedder, keys: TableSpool) -> CachedVectors:
    """Return the cached vectors, after all are computed again if those of some keys are lost or damaged.

    A run on the difference has looked for the vectors of some samples alone.
    """
    space = run.cache_space(run.embed_kernel(embedder))
    drop_damaged_rows(space.uri, keys.reader(), run.context.log)
    vectors = space.vectors()
    if not sql.fetch(_LOST, wanted=keys.reader(), vectors=vectors.row_ids())["n"][0].as_py():
        return vectors
    segments, blobs = run.contract("segments").schema.names, run.contract("content_blobs").schema.names
    every = {"segments": run.read_all("segments", segments), "blobs": run.read_all("content_blobs", blobs)}
    with run.query(_REQUESTS.format(**inputs_of(embedder)), **every) as requests:
        run.compute(run.embed_kernel(embedder), requests, NONE)
    return space.vectors()


def open_vectors(run: CellRun, embedder: Embedder) -> CachedVectors:
    """Return the cached vectors of an embedder; damaged ones of the cell are computed again before."""
    space = run.cache_space(run.embed_kernel(embedder))
    rows = run.read("embeddings", ["cache_key", "status", "embedder"])
    with run.query(_KEYS.format(embedder=sql.literal(embedder.name)), embeddings=rows) as found:
        keys = TableSpool.of(found)
    if drop_damaged_rows(space.uri, keys.reader(), run.context.log):
        compute_vectors(run, embedder)
    few = keys.reader().read_all()["key"].combine_chunks() if run.increment is not None else None
    return space.vectors(few)
