"""Audit the published feature tables of a version, or of all versions."""

from __future__ import annotations

from collections.abc import Iterator

from mm_embed_kernels.errors import UserError
from mm_resources.catalog import Catalog
from mm_resources.monitoring.audit import Audit, audit
from mm_resources.retrieval.query_vectors import QueryEncoder


def audit_tables(
    catalog: Catalog,
    dataset_version: str | None = None,
    modality: str | None = None,
    sample: int = 50,
    seed: int | None = None,
) -> Iterator[Audit]:
    """Audit every published table of a version, or of all versions.

    Args:
        sample: rows to recompute of each table.
        seed: of the sample; by default another sample each time.

    Raises:
        UserError: when none of the chosen cells is published.
    """
    registry = catalog.registry
    cells = [cell for name in [dataset_version] if name for cell in registry.cells(name, modality)]
    cells = cells or [
        cell
        for name in registry.datasets()
        for cell in registry.cells(name)
        if modality in (None, cell.modality)
    ]
    published = [cell for cell in cells if registry.pins.get(cell)]
    if not published:
        of = f" of {dataset_version}" if dataset_version else ""
        raise UserError(f"nothing is published{of}; run `mm backfill DATASET@VERSION`")
    encoder = QueryEncoder()
    for cell in published:
        name = dataset_version or cell.dataset_version
        yield from audit(catalog, name, cell.modality, sample, seed, encoder)
