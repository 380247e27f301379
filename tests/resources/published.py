"""Cells published without Dagster: real texts, a real embedder, real tables and pins."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import lance  # noqa: TID253
import numpy as np
import pyarrow as pa

from mm_embed_kernels.contracts import feature_contract
from mm_embed_kernels.embedders import Embedder
from mm_embed_kernels.identity import content_hash, digest
from mm_embed_kernels.spec.dataset_spec import parse_spec
from mm_resources.blobs.blob_index import INDEX
from mm_resources.catalog import Catalog
from mm_resources.cell import Cell
from mm_resources.features.feature_tables import table_name
from mm_resources.registry.pins import Pin, PinnedTable

Row = dict[str, Any]


def register(catalog: Catalog, folder: Path, dataset: str, version: str, modalities: list[str]) -> None:
    sources = [
        {"name": name, "modality": name, "uri": f"{folder}/*.{name}", "allow_empty": True}
        for name in modalities
    ]
    catalog.registry.register(
        parse_spec(json.dumps({"name": dataset, "version": version, "sources": sources}), "test")
    )


def publish(catalog: Catalog, cell: Cell, rows: list[Row], embedder: Embedder) -> Pin:
    """Publish rows with ``sample`` and ``text``, and optionally a label, an entity, a vector ...

    Rows with ``media`` (bytes) and ``mime`` have blobs.
    """
    embedder.load()
    given = [row.get("vector") for row in rows]
    vectors = (
        np.stack(given) if rows and given[0] is not None else embedder.embed([row["text"] for row in rows])
    )
    contract = feature_contract(vectors.shape[1], [])
    table = pa.Table.from_pylist([_row(cell, place, row, embedder) for place, row in enumerate(rows)])
    filled = table.append_column(
        "vector", pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), vectors.shape[1])
    )
    name, number = table_name(cell, embedder.name), catalog.registry.pins.next_number(cell)
    candidate = catalog.features.write_candidate(name, contract, [contract.cast(filled)])
    pinned = PinnedTable(
        embedder=embedder.name, settings={}, fingerprint=embedder.fingerprint, weights_hash=embedder.weights_hash,
        preprocessing=embedder.preprocessing, primary=True, table=name, lance_version=candidate.lance_version,
        tag=f"pin-{number}-v{candidate.lance_version}", rows=candidate.rows, dimension=vectors.shape[1], space=embedder.space,
        index=candidate.index, digest=candidate.digest, recall=1.0, recall_filtered=1.0,
    )  # fmt: skip
    catalog.features.tag(name, candidate.lance_version, pinned.tag)
    now = datetime.now(UTC).isoformat()
    stages = _store_media(catalog, cell, number, rows) if rows and "media" in rows[0] else {}
    pin = Pin(number, cell.dataset, cell.version, cell.modality, "run", now, "data", [pinned], {}, stages)
    catalog.registry.pins.publish(cell, pin)
    return pin


def _store_media(catalog: Catalog, cell: Cell, number: int, rows: list[Row]) -> dict[str, Row]:
    """Store the media of rows, and the table that locates them; return the stages of the pin."""
    hashes = catalog.blobs.put([row["media"] for row in rows])
    found = [next(iter(catalog.blobs.index.locations(each))) for each in dict.fromkeys(hashes)]
    name = f"stages/content_blobs/{cell.path}-{number}.lance"
    table = pa.Table.from_pylist([asdict(each) for each in found], INDEX)
    dataset = lance.write_dataset(table, catalog.store.uri(name))
    return {"content_blobs": {"table": name, "lance_version": dataset.version}}


def _row(cell: Cell, place: int, row: Row, embedder: Embedder) -> Row:
    sample = digest("sample", cell.dataset, row["sample"])[:32]
    return {
        "feature_id": digest("feature", cell.path, row["sample"], str(place))[:32],
        "segment_id": digest("segment", sample, str(place))[:32],
        "sample_id": sample,
        "entity_id": digest("entity", row.get("entity", row["sample"]))[:32],
        "dataset": cell.dataset, "version": cell.version, "modality": cell.modality,
        "content_hash": content_hash(row.get("media") or row["text"].encode()), "source_uri": f"/{row['sample']}", "key": row["sample"], "span": row.get("span", f"part={place}"),
        "embedder": embedder.name, "fingerprint": embedder.fingerprint, "weights_hash": embedder.weights_hash, "preprocessing": "{}",
        "label": row.get("label"), "split": row.get("split", "train"), "quality_score": 1.0, "passed": [], "partial": False,
        "text": row["text"], "mime": row.get("mime", "text/plain"), "run_id": "run", "created_at": datetime.now(UTC),
    }  # fmt: skip
