"""Tracing of a training set from its digest: the pins behind it, and its samples."""

from __future__ import annotations

from typing import Any

import numpy as np

from mm_embed_kernels.errors import UserError
from mm_resources.catalog import Catalog
from mm_resources.cell import Cell
from mm_resources.retrieval.manifests import Manifest, check_manifest, parts_of
from mm_resources.retrieval.training_set import TrainingSet

# Of each sample, where its table has them.
_COLUMNS = ("feature_id", "sample_id", "key", "source_uri", "content_hash", "span", "label", "split")


def trace(catalog: Catalog, of: str | Manifest, samples: int) -> dict[str, Any]:
    """Return what a training set was made of.

    Args:
        of: digest of a recorded set, whole or its beginning; or a manifest, recorded or not.
        samples: rows to return at most.

    Returns:
        ``digest``; ``rows``; ``sets``, one for each recorded manifest of these rows: ``recorded_at`` (None
        for one that is given), ``dataset_version``, ``where``, ``weights`` (of a mixture) and its ``tables``
        with their pins; and ``samples``, the first rows: ids, key, source, content hash, label and split.

    Raises:
        UserError: as `TrainingSetRecords.find`, and where the store no longer has the rows;
            of a set whose rows were forgotten there are none.
    """
    if isinstance(of, str):
        records = catalog.training_sets.find(of)
    else:
        check_manifest(of)
        records = [{"recorded_at": None, "manifest": of}]
    manifest = records[-1]["manifest"]
    is_redacted = records[-1].get("is_redacted", False)
    return {
        "digest": manifest["digest"],
        "rows": manifest["rows"],
        "sets": [_describe(catalog, record) for record in records],
        "samples": _samples(catalog, manifest, samples) if samples and not is_redacted else [],
    }


def _describe(catalog: Catalog, record: dict[str, Any]) -> dict[str, Any]:
    manifest = record["manifest"]
    tables = [
        _describe_table(catalog, part["dataset_version"], table)
        for part in parts_of(manifest)
        for table in part["tables"]
    ]
    return {
        "recorded_at": record["recorded_at"],
        "dataset_version": manifest["dataset_version"],
        "where": [part["where"] for part in parts_of(manifest) if part["where"]],
        "weights": manifest.get("weights"),
        "is_redacted": record.get("is_redacted", False),
        "tables": tables,
    }


def _describe_table(catalog: Catalog, dataset_version: str, table: dict[str, Any]) -> dict[str, Any]:
    dataset, _, version = dataset_version.partition("@")
    pin = catalog.registry.pins.get(Cell(dataset, version, table["modality"]), table["pin"])
    pinned = next((each for each in pin.tables if each.table == table["table"]), None) if pin else None
    return {
        "dataset_version": dataset_version,
        "modality": table["modality"],
        "pin": table["pin"],
        "run_id": pin.run_id if pin else None,
        "published_at": pin.published_at if pin else None,
        "embedder": pinned.embedder if pinned else None,
        "weights_hash": pinned.weights_hash if pinned else None,
        "fingerprint": table.get("fingerprint"),
        "table": table["table"],
        "lance_version": table["lance_version"],
    }


def _samples(catalog: Catalog, manifest: Manifest, most: int) -> list[dict[str, Any]]:
    chosen = TrainingSet.from_manifest(catalog, manifest)
    reader = chosen.reader()
    rows: list[dict[str, Any]] = reader.select(_COLUMNS)(np.arange(min(most, len(reader)))).to_pylist()
    return rows


def recorded_manifest(catalog: Catalog, digest: str) -> Manifest:
    """Return the manifest of a digest; of several of the same rows, the last recorded one.

    Raises:
        UserError: as `TrainingSetRecords.find`, and for one whose filter was removed by a forgetting.
    """
    record = catalog.training_sets.find(digest)[-1]
    if record.get("is_redacted"):
        raise UserError(
            f"rows of the training set {record['manifest']['digest']} were forgotten, and its filter with "
            "them; `mm trace` names its pins; make the set again from its dataset version"
        )
    manifest: Manifest = record["manifest"]
    return manifest
