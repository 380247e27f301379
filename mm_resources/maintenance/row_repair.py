"""Repair of wrong published rows: remove what is cached of them, so that a backfill computes it again."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from mm_embed_kernels.embedders import Embedder
from mm_embed_kernels.kernels.embed import EmbedKernel
from mm_embed_kernels.kernels.segment import SegmentKernel
from mm_embed_kernels.modalities import get
from mm_embed_kernels.sandbox.sandbox import Limits
from mm_resources.catalog import Catalog
from mm_resources.features.table_paths import table_path
from mm_resources.maintenance.table_repair import Repair
from mm_resources.registry.pins import Pin, PinnedTable

# Stages whose rows, or whose tables' rows, come from the cached texts and vectors.
_STAGES = ("segments", "embeddings", "normalized_features", "feature_table", "feature_views")


def evict_rows(
    catalog: Catalog,
    pin: Pin,
    pinned: PinnedTable,
    embedder: Embedder,
    feature_ids: Sequence[str],
    repair: Repair,
) -> int:
    """Remove the cached results behind published rows, and mark the stages that read them; return their rows.

    Until a backfill of the cell has computed them again, readers see the rows as they are.
    """
    at = pin.place("embeddings")
    reader = catalog.tables.read("embeddings", pin.cell, ["feature_id", "cache_key", "content_hash"], at=at)
    wanted = pa.array(feature_ids, pa.string())
    rows = pa.Table.from_batches(
        [batch.filter(pc.is_in(batch["feature_id"], wanted)) for batch in reader], reader.schema
    )
    if rows.num_rows == 0:
        return 0
    modality, limits = get(pin.modality), Limits()
    catalog.cache.note_wrong_results()
    # Stages first: a repair that is killed after it computes again what is cached, which harms nothing.
    repair.mark(catalog, pin.cell, *_STAGES)
    repair.tables.setdefault(table_path(pinned.table), set()).add(pinned.lance_version)
    catalog.cache.space(EmbedKernel(embedder, catalog.blobs, limits)).evict(
        "key", rows["cache_key"].to_pylist()
    )
    catalog.cache.space(SegmentKernel(modality, catalog.blobs, limits)).evict(
        "key", pc.unique(rows["content_hash"]).to_pylist()
    )
    # Once more: a run that began after the first note may have read them before they were evicted.
    catalog.cache.note_wrong_results()
    return int(rows.num_rows)
