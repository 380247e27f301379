"""Audit the published feature tables of a version, or of all versions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from mm_embed_kernels.errors import UserError
from mm_embed_kernels.identity import split_dataset_version
from mm_resources.catalog import Catalog
from mm_resources.cell import Cell
from mm_resources.maintenance.row_repair import evict_rows
from mm_resources.maintenance.table_repair import Repair
from mm_resources.monitoring.audit import Audit, audit
from mm_resources.retrieval.query_vectors import QueryEncoder


def audit_tables(
    catalog: Catalog,
    dataset_version: str | None = None,
    modality: str | Sequence[str] | None = None,
    sample: int = 50,
    seed: int | None = None,
) -> Iterator[Audit]:
    """Audit every published table of a version, or of all versions.

    Args:
        sample: rows to recompute of each table.
        seed: of the sample; by default another sample each time.

    Raises:
        UserError: for a modality that the version does not declare, and when none of the cells is published.
    """
    chosen = [modality] if isinstance(modality, str) else modality or None
    if dataset_version is not None and chosen is not None:
        catalog.registry.cells(dataset_version, chosen)
    pins = [
        pin
        for pin in catalog.registry.published_pins(dataset_version)
        if chosen is None or pin.modality in chosen
    ]
    if not pins:
        of = f" of {dataset_version}" if dataset_version else ""
        raise UserError(f"nothing is published{of}; run `mm backfill DATASET@VERSION`")
    encoder = QueryEncoder()
    for pin in pins:
        name = dataset_version or pin.dataset_version
        yield from audit(catalog, name, pin.modality, sample, seed, encoder)


def repair_rows(catalog: Catalog, audits: Sequence[Audit]) -> Repair:
    """Remove what is cached of wrong rows, and mark their stages, so that a backfill computes them again.

    Rows whose blobs are missing or damaged stay: `mm doctor --verify` and a backfill fetch these again.
    """
    repair, encoder = Repair(), QueryEncoder()
    for table in audits:
        wrong = [row.feature_id for row in table.wrong if row.cause in ("vector", "text")]
        if not wrong:
            continue
        # Not the latest: an alias names the pin that was promoted, and a backfill may have ended meanwhile.
        dataset, version = split_dataset_version(table.dataset_version)
        pin = catalog.registry.pins.get(Cell(dataset, version, table.modality), table.pin)
        assert pin is not None
        pinned = pin.table(table.embedder)
        rows = evict_rows(catalog, pin, pinned, encoder.embedder(pinned), wrong, repair)
        repair.notes.append(f"{table.table}: {rows:,} wrong rows are computed again")
    return repair
