"""Upkeep of a store: join small files and remove superseded versions; published tables stay as they are.

The versions of a feature table, or of a stage's, are those of several dataset versions. A tag for each pin or
ref keeps its version with every file that it names, whatever becomes of the others; no upkeep moves rows of
these tables, since writers join the small fragments themselves.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from mm_embed_kernels.contracts.pipeline import FAILURE_STAGES
from mm_resources.catalog import Catalog
from mm_resources.compute.cache import doubles
from mm_resources.features.reader_tags import move_reader_tags
from mm_resources.maintenance.stage_versions import remove_unnamed_stages
from mm_resources.maintenance.unnamed_tables import remove_unnamed
from mm_resources.storage import dataset_versions, lance_datasets
from mm_resources.storage.secret_table import PART as SECRETS
from mm_resources.storage.store import Store

# Longer than any run: versions that a run reads, or has written and not yet published, are younger.
OLDER_THAN = timedelta(days=7)
# Parts of the store with Lance datasets; True where these grow by commits (the others are replaced as a
# whole).
_PARTS = {
    **dict.fromkeys(("blobs", "cache", "ledger", SECRETS), True),
    **dict.fromkeys(("stages", "failures", "features"), False),
}
# Tag of the failures that a stage names now.
CURRENT = "current"


@dataclass
class PartUpkeep:
    """Counts of upkeep in one part of the store.

    Attributes:
        part: folder below the root.
        tables: Lance datasets in it.
        joined: small fragments that were joined with others.
        doubles: cache rows that were removed because a better or equal row has their key.
        versions: superseded versions that were removed.
        bytes: size of the files of these versions alone.
    """

    part: str
    tables: int = 0
    joined: int = 0
    doubles: int = 0
    versions: int = 0
    bytes: int = 0


def upkeep(catalog: Catalog, older_than: timedelta = OLDER_THAN) -> list[PartUpkeep]:
    """Tidy the whole store; safe beside running backfills and readers.

    Args:
        older_than: age from which superseded versions are removed; pinned versions are tagged and stay.

    Returns:
        The counts of each part.
    """
    store = catalog.store
    tag_current_failures(catalog)
    removed = {
        "features": remove_unnamed(catalog, older_than),
        "stages": remove_unnamed_stages(catalog, older_than),
    }
    parts = [_tidy_part(store, part, grows, older_than) for part, grows in _PARTS.items()]
    for part in parts:
        versions, size = removed.get(part.part, (0, 0))
        part.versions, part.bytes = part.versions + versions, part.bytes + size
    problems: list[str] = []  # versions that cannot be read, which `mm doctor` reports
    for dataset, modality in {(cell.dataset, cell.modality) for cell in catalog.registry.all_cells(problems)}:
        move_reader_tags(catalog.registry, catalog.features, dataset, modality)
    for name in store.unfinished_objects(older_than):
        store.remove(name)
    return parts


def tag_current_failures(catalog: Catalog) -> None:
    """Tag the failures that the stages name now; newer versions are those of killed runs and do not count."""
    for cell in catalog.registry.all_cells():
        for asset in FAILURE_STAGES:
            meta = catalog.tables.meta(asset, cell)
            if meta is not None and meta.failures:
                catalog.failures.tag(asset, cell, meta.failures, CURRENT)


def _tidy_part(store: Store, part: str, grows: bool, older_than: timedelta) -> PartUpkeep:
    counts = PartUpkeep(part)
    for name in store.tables(part):
        uri = store.uri(name)
        counts.tables += 1
        if part == "cache":
            counts.doubles += _remove_duplicates(uri)
        if grows:
            counts.joined += lance_datasets.compact(uri, 2)
        versions, size = dataset_versions.clean(uri, older_than)
        counts.versions, counts.bytes = counts.versions + versions, counts.bytes + size
    return counts


def _remove_duplicates(uri: str) -> int:
    """Leave one row for each key of a cache space, the one that readers choose; return the removed rows."""
    dataset = lance_datasets.open_dataset(uri)
    return 0 if dataset is None else lance_datasets.delete_rows(dataset, doubles(dataset))
