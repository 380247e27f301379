"""The option `--modality` of commands that read what is published; its values are named without it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mm_embed_kernels.errors import UserError

if TYPE_CHECKING:
    from mm_resources.catalog import Catalog


def choose_modalities(
    catalog: Catalog, given: list[str] | None, dataset_versions: Sequence[str] | None
) -> list[str]:
    """Return the modalities of the option; without it, the one that is published.

    Args:
        dataset_versions: published versions that are read; all for None.

    Raises:
        UserError: naming the modalities, where several are published, or none.
    """
    if given:
        return given
    registry = catalog.registry
    problems: list[str] = []
    versions: Sequence[str | None] = dataset_versions or [None]
    published = sorted(
        {
            pin.modality
            for version in versions
            for pin in registry.published_pins(version, problems if version is None else None)
        }
    )
    if len(published) == 1:
        return published
    of = " and ".join(dataset_versions or []) or f"the store {registry.store.root}"
    if not published:
        raise UserError(f"nothing is published of {of}; run `mm backfill DATASET@VERSION`")
    raise UserError(f"--modality is missing; published of {of} are: {', '.join(published)}")
