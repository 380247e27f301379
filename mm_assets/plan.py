"""What a backfill would compute and reuse, and how long that would take, without doing any of it."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from mm_assets.assets import raw_assets
from mm_assets.assets.embeddings import inputs_of
from mm_embed_kernels import relational
from mm_embed_kernels.curation import curate
from mm_embed_kernels.errors import SampleError, UserError
from mm_embed_kernels.kernel import Kernel, ProbeKernel, SegmentKernel
from mm_embed_kernels.modalities import get
from mm_embed_kernels.rules import rule_set
from mm_embed_kernels.sandbox import Limits
from mm_embed_kernels.spec import DatasetSpec
from mm_embed_kernels.validation import Bound, at_the_door, judge, validation_bounds
from mm_resources.blobs import BlobStore
from mm_resources.cache import KEY, LATEST, ComputeCache
from mm_resources.compute import Compute, spool
from mm_resources.fetch import FETCH_KEY, FetchKernel
from mm_resources.ledger import Ledger
from mm_resources.registry import Registry
from mm_resources.resources import EmbedderResource
from mm_resources.store import Cell, Store


@dataclass(frozen=True)
class Planned:
    """Rows of one kernel that a backfill would compute and reuse, and the seconds that it would take."""

    kernel: str
    computed: int
    reused: int
    seconds: float


_LISTED = f"""
SELECT l.*, c.content_hash, c.size AS bytes FROM (SELECT *, {FETCH_KEY} AS fetch_key FROM listing JOIN flavours USING (source)) l
LEFT JOIN ({LATEST}) c ON l.fetch_key = c.key WHERE l.error_class IS NULL
"""
_PROBED = f"""
SELECT k.* EXCLUDE (size, bytes, fetch_key, flavour, locator, tag, error_class, message, modality), k.bytes AS size,
       p.* EXCLUDE (key, error_class, message)
FROM known k JOIN ({LATEST}) p ON k.content_hash = p.key WHERE p.status = 'ok'
"""
# The segments of the kept samples, with the text that they or their source bring.
_UNITS = f"""
SELECT DISTINCT k.key AS content_hash, s.unit.span AS span, coalesce(s.unit.text, CASE WHEN s.n = 1 THEN k.transcript END) AS text
FROM kept k JOIN (SELECT key, unnest(segments) AS unit, len(segments) AS n FROM ({LATEST}) WHERE status = 'ok') s USING (key)
"""
_WRITTEN = f"SELECT u.* REPLACE (coalesce(u.text, t.text) AS text) FROM units u LEFT JOIN ({LATEST}) t ON t.key = {KEY}"


def plan_cell(store: Store, cell: Cell, embedder: EmbedderResource) -> list[Planned]:
    """The plan of one cell. What was never read counts as one segment each, which is exact for images."""
    registry, compute, blobs = Registry(store), Compute(ComputeCache(store), None), BlobStore(store)
    spec, modality, rates = registry.spec(cell.dataset, cell.version), get(cell.modality), Ledger(store).rates()
    fetch = FetchKernel(spec, blobs)
    probe, segment = ProbeKernel(modality, blobs), SegmentKernel(modality, blobs)
    embeds = [embedder.kernel(blobs, Limits(), made) for made in embedder.open_all(spec.embedders.get(cell.modality))]

    def planned(kernel: Kernel, wanted: int, missing: int, unknown: int = 0) -> Planned:
        seconds = (missing + unknown) * rates.get(kernel.fingerprint, kernel.seconds_per_row)
        return Planned(kernel.name, missing + unknown, wanted - missing, round(seconds, 1))

    def cached(kernel: Kernel, columns: list[str] | None = None) -> pa.RecordBatchReader:
        return compute.cache.space(kernel).reader(columns)

    bounds = validation_bounds(modality, spec.validation.get(cell.modality, {}))
    with _listed(registry, spec, cell.modality, bounds) as listing:
        with relational.query(raw_assets.REQUESTS, listing=listing(), flavours=fetch.flavours()) as requests:
            plans = [planned(fetch, *compute.missing(fetch, requests))]
        known = relational.fetch(_LISTED, listing=listing(), flavours=fetch.flavours(), cached=cached(fetch))
    unknown = plans[0].computed
    known = known.filter(pa.compute.is_valid(known["content_hash"]))
    contents = known.select(["content_hash"]).rename_columns(["key"])
    plans.append(planned(probe, *compute.missing(probe, contents), unknown))
    valid = relational.fetch(_PROBED, known=known, cached=cached(probe))
    valid = valid.filter(pa.array([reason is None for reason in judge(valid, bounds)], pa.bool_()))
    kept = _kept(valid, spec.name, spec.splits, cell.modality, spec.curation.rules)
    plans.append(planned(segment, *compute.missing(segment, kept), unknown))
    uncut = plans[-1].computed
    units = relational.fetch(_UNITS, kept=kept, cached=cached(segment))
    if name := spec.transcribe.get(cell.modality):
        transcribe = embedder.transcribe_kernel(name, blobs, Limits())
        silent = relational.fetch(f"SELECT DISTINCT {KEY} AS key FROM units WHERE text IS NULL", units=units)
        plans.append(planned(transcribe, *compute.missing(transcribe, silent), uncut))
        units = relational.fetch(_WRITTEN, units=units, cached=cached(transcribe))
    for embed in embeds:
        wanted = relational.fetch("SELECT {key} AS key FROM units WHERE {readable}".format(**inputs_of(embed.embedder)), units=units)
        plans.append(planned(embed, *compute.missing(embed, wanted), uncut))
    return plans


@contextmanager
def _listed(registry: Registry, spec: DatasetSpec, modality: str, bounds: list[Bound]) -> Iterator[Callable[[], pa.RecordBatchReader]]:
    """The listing, made once and read from disk as often as it is wanted.

    Raises:
        UserError: when a source cannot be listed.
    """
    with tempfile.TemporaryDirectory(prefix="mm-plan-") as folder:
        path = Path(folder) / "listing.arrow"
        try:
            spool(at_the_door(registry.listings.preview(spec, modality), bounds), path)
        except (OSError, SampleError) as error:
            raise UserError(f"{spec.dataset_version} cannot be listed: {' '.join(str(error).split())}") from error
        yield lambda: pa.ipc.open_stream(pa.memory_map(str(path)))


def _kept(valid: pa.Table, dataset: str, shares: dict[str, float], modality: str, settings: Any) -> pa.Table:
    """Content hashes (``key``) that curation would keep, as far as their probes are known, and their given transcripts."""
    rules = rule_set(modality, settings)
    tables: Iterator[pa.Table] = curate(
        lambda columns: (valid if columns is None else valid.select(columns)).to_reader(), rules, dataset, shares
    )
    kept = [table.filter(table["kept"]).select(["content_hash", "transcript"]) for table in tables]
    schema = pa.schema([("content_hash", pa.string()), ("transcript", pa.string())])
    return pa.concat_tables([schema.empty_table(), *kept]).rename_columns(["key", "transcript"])
