"""Lineage of a feature: source, blob, decisions, segment, embedder and run, at the version of its pin."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from mm_embed_kernels.errors import UserError
from mm_resources.catalog import Catalog
from mm_resources.cell import Cell
from mm_resources.registry.pins import Pin, PinnedTable
from mm_resources.retrieval.identifiers import find_row

_DECISION = (
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


def explain(
    catalog: Catalog, identifier: str, pins: Iterable[Pin], problems: Sequence[str] = ()
) -> dict[str, Any]:
    """Return the lineage of a published feature, segment or sample.

    Args:
        identifier: id of a feature, a segment or a sample, with or without ``id:``.
        pins: pins to look in; of an alias, the promoted ones.
        problems: versions that could not be looked into.

    Raises:
        UserError: when no published table has the id.
    """
    identifier = identifier.removeprefix("id:")
    for pin in pins:
        for pinned in pin.tables:
            if row := _feature(catalog, pinned, identifier):
                return _Lineage(catalog, pin.cell, pin, pinned, row).as_dict()
    raise UserError(
        f"no published feature, segment or sample has the id {identifier}; "
        "`mm failures` and FeatureStore.decisions list the others" + "".join(f"; {each}" for each in problems)
    )


def _feature(catalog: Catalog, pinned: PinnedTable, identifier: str) -> dict[str, Any] | None:
    table = catalog.features.table(pinned)
    return find_row([table], identifier, [name for name in table.schema.names if name != "vector"])


@dataclass(frozen=True)
class _Lineage:
    """The lineage of one row of a feature table, a method for each section.

    Attributes:
        row: the row, without its vector.
    """

    catalog: Catalog
    cell: Cell
    pin: Pin
    pinned: PinnedTable
    row: dict[str, Any]

    def as_dict(self) -> dict[str, Any]:
        sample = f"sample_id = '{self.row['sample_id']}'"
        listed = self._stage("dataset_registry", sample)
        return {
            "feature_id": self.row["feature_id"],
            "sample_id": self.row["sample_id"],
            "modality": self.cell.modality,
            "dataset_version": self._dataset_version(),
            "source": self._source(listed),
            "blob": self._stage("content_blobs", f"content_hash = '{self.row['content_hash']}'"),
            "metadata": self._metadata(self._stage("sample_metadata", sample), listed),
            "decisions": self._decisions(self._stage("curated_samples", sample)),
            "segment": self._segment(),
            "embedder": self._embedder(),
            "run": self._run(),
        }

    def _stage(self, asset: str, where: str) -> dict[str, Any]:
        """Return one row of a stage's table at the pinned version; empty when there is none."""
        at = self.pin.place(asset)
        rows: list[dict[str, Any]] = (
            self.catalog.tables.read(asset, self.cell, where=where, at=at).read_all().to_pylist()
        )
        return rows[0] if rows else {}

    def _dataset_version(self) -> dict[str, Any]:
        return {
            "name": self.cell.dataset_version,
            "spec": self.catalog.registry.spec(self.cell.dataset, self.cell.version).digest,
            "data_version": self.pin.data_version,
        }

    def _source(self, listed: dict[str, Any]) -> dict[str, Any]:
        row = self.row
        return {
            "name": listed.get("source"),
            "uri": row["source_uri"],
            "key": listed.get("key"),
            "locator": listed.get("locator"),
            "tag": listed.get("tag"),
            "modified_at": listed.get("modified_at"),
            "entity_id": row["entity_id"],
            "label": row["label"],
            "columns": {name: value for name, value in row.items() if name.startswith("user__")},
        }

    def _metadata(self, probed: dict[str, Any], listed: dict[str, Any]) -> dict[str, Any]:
        """Return the probe's columns that have a value, without those copied from the listing."""
        copied = set(listed) - {"sample_id", "content_hash"}
        return {name: value for name, value in probed.items() if name not in copied and value is not None}

    def _decisions(self, curated: dict[str, Any]) -> dict[str, Any]:
        return {name: curated.get(name) for name in _DECISION}

    def _segment(self) -> dict[str, Any]:
        segment = self._stage("segments", f"segment_id = '{self.row['segment_id']}'")
        return {
            "segment_id": self.row["segment_id"],
            "span": self.row["span"],
            "text": segment.get("text"),
            "cost": segment.get("cost"),
        }

    def _embedder(self) -> dict[str, Any]:
        pinned = self.pinned
        embedding = self._stage("embeddings", f"feature_id = '{self.row['feature_id']}'")
        return {
            "name": pinned.embedder,
            "fingerprint": pinned.fingerprint,
            "weights_hash": pinned.weights_hash,
            "preprocessing": pinned.preprocessing,
            "space": pinned.space,
            "dimension": pinned.dimension,
            "cache_key": embedding.get("cache_key"),
            "seconds": embedding.get("seconds"),
            **pinned.settings,
        }

    def _run(self) -> dict[str, Any]:
        pin, pinned = self.pin, self.pinned
        return {
            "run_id": self.row["run_id"],
            "created_at": self.row["created_at"],
            "published_by": pin.run_id,
            "published_at": pin.published_at,
            "pin": pin.number,
            "table": pinned.table,
            "lance_version": pinned.lance_version,
            "override": pin.override or None,
            "stages": pin.stages,
        }
