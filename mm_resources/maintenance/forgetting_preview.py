"""A preview of forgetting, in lines for a person, before anything is removed."""

from __future__ import annotations

from collections.abc import Iterator

from mm_resources.blobs.receipts import Receipt
from mm_resources.catalog import Catalog
from mm_resources.maintenance.forgetting_scope import find_scope, row_condition
from mm_resources.maintenance.stage_versions import named_versions
from mm_resources.registry.pins import PinnedTable
from mm_resources.storage import lance_datasets

# Samples and pins that are named.
_NAMED = 10
_PARTS = ("stages", "failures", "features", "registry/listings", "cache")


def describe_scope(catalog: Catalog, identifier: str) -> Iterator[str]:
    """Yield what `forget` would remove: contents, samples with their names, rows by part, published cells.

    Yields nothing for what no table names: `forget` says so, or completes an earlier request.

    Raises:
        UserError: as `find_scope`.
    """
    receipt = find_scope(catalog.store, identifier)
    if not receipt.samples:
        return
    yield f"would remove {len(receipt.hashes):,} contents of {len(receipt.samples):,} samples:"
    samples: dict[str, str] = {}
    named = named_versions(catalog)
    rows: dict[str, int] = {}
    tables: dict[str, int] = {}
    for part in _PARTS:
        for name in catalog.store.tables(part):
            # Nobody reads the head of a stage's table.
            version = max(named.versions(name), default=None) if part == "stages" else None
            dataset = lance_datasets.open_dataset(catalog.store.uri(name), version)
            condition = row_condition(receipt, name, dataset.schema.names) if dataset is not None else ""
            if dataset is None or not condition or not (count := dataset.count_rows(filter=condition)):
                continue
            rows[part], tables[part] = rows.get(part, 0) + count, tables.get(part, 0) + 1
            if part == "registry/listings":
                columns = ["sample_id", "key", "source_uri"]
                for batch in lance_datasets.reader(dataset, dataset.schema, columns, condition):
                    samples |= {row["sample_id"]: row["key"] for row in batch.to_pylist()}
    for sample, key in sorted(samples.items(), key=lambda item: item[1])[:_NAMED]:
        yield f"  {key} (sample {sample})"
    if len(samples) > _NAMED:
        yield f"  and {len(samples) - _NAMED:,} more"
    for part, count in rows.items():
        yield f"  {count:,} rows in {tables[part]:,} tables of {part}"
    pins = [
        f"{pin.dataset_version} {pin.modality}"
        for pin in catalog.registry.latest_pins()
        if _has_rows(catalog, receipt, pin.primary)
    ]
    if pins:
        yield f"  published: {', '.join(pins[:_NAMED])}{', ...' if len(pins) > _NAMED else ''}"


def _has_rows(catalog: Catalog, receipt: Receipt, pinned: PinnedTable) -> bool:
    """Return whether a pinned table has rows of the samples."""
    dataset = catalog.features.dataset(pinned.table, pinned.lance_version)
    condition = row_condition(receipt, f"features/{pinned.table}.lance", dataset.schema.names)
    return bool(dataset.count_rows(filter=condition))
