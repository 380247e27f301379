"""Lineage of one feature: source, blob, decisions, segment, embedder and run, read from the stages of its pin."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mm_embed_kernels.errors import UserError
from mm_resources.cell import Cell
from mm_resources.registry.pins import Pin, PinnedTable

if TYPE_CHECKING:
    from mm_resources.catalog import Catalog


def explain(catalog: Catalog, identifier: str, dataset_version: str | None) -> dict[str, Any]:
    """The chain behind a feature, segment or sample id that is published.

    Raises:
        UserError: when no published table holds the id.
    """
    identifier = identifier.removeprefix("id:")
    if not identifier.isalnum():
        raise UserError(f"{identifier!r} is not an id")
    registry = catalog.registry
    for name in [dataset_version] if dataset_version else registry.datasets():
        for cell in registry.cells(name):
            pin = registry.pin(cell)
            for pinned in pin.tables if pin else []:
                row = _row(catalog, pinned, identifier)
                if pin and row:
                    return _chain(catalog, cell, pin, pinned, row)
    raise UserError(
        f"no published feature, segment or sample has the id {identifier}; `mm failures` and FeatureStore.decisions hold the others"
    )


def _row(catalog: Catalog, pinned: PinnedTable, identifier: str) -> dict[str, Any] | None:
    where = " OR ".join(f"{column} = '{identifier}'" for column in ("feature_id", "segment_id", "sample_id"))
    table = catalog.features.table(pinned)
    columns = [name for name in table.schema.names if name != "vector"]
    found = table.search().where(where).select(columns).limit(1).to_arrow().to_pylist()
    return found[0] if found else None


def _chain(
    catalog: Catalog, cell: Cell, pin: Pin, pinned: PinnedTable, row: dict[str, Any]
) -> dict[str, Any]:
    tables = catalog.tables

    def stage(asset: str, where: str) -> dict[str, Any]:
        """The one row of a stage's table, as it stood when the pin was made."""
        found = (
            tables.read(asset, cell, where=where, version=pin.stages[asset]["lance_version"])
            .read_all()
            .to_pylist()
        )
        return found[0] if found else {}

    sample = f"sample_id = '{row['sample_id']}'"
    content = f"content_hash = '{row['content_hash']}'"
    listed = stage("dataset_registry", sample)
    curated = stage("curated_samples", sample)
    metadata = stage("sample_metadata", sample)
    segment = stage("segments", f"segment_id = '{row['segment_id']}'")
    embedding = stage("embeddings", f"feature_id = '{row['feature_id']}'")
    passengers = set(listed) - {"sample_id"}
    return {
        "feature_id": row["feature_id"],
        "sample_id": row["sample_id"],
        "modality": cell.modality,
        "dataset_version": {
            "name": cell.dataset_version,
            "spec": catalog.registry.spec(cell.dataset, cell.version).digest,
            "data_version": pin.data_version,
        },
        "source": {
            "name": listed.get("source"),
            "uri": row["source_uri"],
            "key": listed.get("key"),
            "locator": listed.get("locator"),
            "tag": listed.get("tag"),
            "modified_at": listed.get("modified_at"),
            "entity_id": row["entity_id"],
            "label": row["label"],
            "columns": {name: value for name, value in row.items() if name.startswith("user__")},
        },
        "blob": stage("content_blobs", content),
        "metadata": {
            name: value for name, value in metadata.items() if name not in passengers and value is not None
        },
        "decisions": {
            name: curated.get(name)
            for name in (
                "kept",
                "rule",
                "reason",
                "rules",
                "quality_score",
                "duplicate_group",
                "duplicates",
                "split_group",
                "split",
            )
        },
        "segment": {
            "segment_id": row["segment_id"],
            "span": row["span"],
            "text": segment.get("text"),
            "cost": segment.get("cost"),
        },
        "embedder": {
            "name": pinned.embedder,
            "fingerprint": pinned.fingerprint,
            "weights_hash": pinned.weights_hash,
            "preprocessing": pinned.preprocessing,
            "space": pinned.space,
            "dimension": pinned.dimension,
            "cache_key": embedding.get("cache_key"),
            "seconds": embedding.get("seconds"),
            **pinned.settings,
        },
        "run": {
            "run_id": row["run_id"],
            "created_at": row["created_at"],
            "published_by": pin.run_id,
            "published_at": pin.published_at,
            "pin": pin.number,
            "table": pinned.table,
            "lance_version": pinned.lance_version,
            "override": pin.override or None,
            "stages": pin.stages,
        },
    }
