"""Forgetting: remove a content from every blob, cache, table, version and pin, and refuse it from then on.

A content is identified by its hash. All samples that ever had it lose their rows, in the current version of
each table and in every tagged version: these are written again without the rows, with their indexes; the tags
move to the new versions, the pins follow their tags, and then all superseded versions are removed. A tag
marks the current version of a table while earlier ones are written on top of it, so a crash half-way loses
nothing; the same command completes it. Stage and feature tables, whose versions share files, are written into
new ones (`stage_replays`, `lineage_replays`); refs and pins follow the receipt. Picks lose the samples.

No other process may write to the store meanwhile. Readers go on: until all pins have moved, the versions that
the old ones name stay; blobs are indexed in another pack before their own one is removed. A reader of a
version that was removed gets an error of one line, or reads from the new pins
(`mm_resources.features.removed_rows`).
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from mm_embed_kernels.errors import UserError
from mm_resources.blobs.receipts import Receipt
from mm_resources.catalog import Catalog
from mm_resources.features.reader_tags import move_reader_tags
from mm_resources.maintenance.erasure import erase
from mm_resources.maintenance.forgetting_scope import find_scope, secret_ids
from mm_resources.maintenance.lineage_replays import remove_replayed, replay_tables
from mm_resources.maintenance.pin_updates import move_pins
from mm_resources.maintenance.stage_replays import move_refs, remove_replayed_stages, replay_stages
from mm_resources.maintenance.stage_versions import adopt_tables, remove_superseded
from mm_resources.maintenance.table_rewrites import TableRewriter
from mm_resources.maintenance.upkeep import tag_current_failures
from mm_resources.storage import lance_datasets
from mm_resources.storage.secret_table import PART as SECRETS
from mm_resources.storage.store import Store

# Parts of the store with rows of samples; failures before the stages that name their versions.
STAGES, FEATURES = "stages", "features"
_PARTS = ("failures", STAGES, FEATURES, "registry/listings", "cache")


def forget(catalog: Catalog, identifier: str) -> Receipt:
    """Forget a content, or all contents that a sample has had.

    Repeating the command completes a forgetting that crashed; after a complete one it changes nothing.

    Args:
        identifier: content hash or sample id.

    Returns:
        The receipt, complete.

    Raises:
        UserError: when no version of a table names the identifier.
    """
    receipt = _begin(catalog, identifier)
    if receipt.done_at:
        return receipt
    store = catalog.store
    receipt.blobs += erase(catalog.blobs, receipt.hashes)
    catalog.secrets.remove(secret_ids(store, receipt))
    rewriter = TableRewriter(catalog, receipt)
    for part in _PARTS:
        if part == STAGES:
            replay_stages(catalog, receipt)
            continue
        if part == FEATURES:
            replay_tables(catalog, receipt)
            continue
        for name in list(store.tables(part)):
            rewriter.rewrite(name)
    _forget_picks(catalog, receipt)
    move_refs(catalog, receipt)
    move_pins(catalog, receipt)
    catalog.training_sets.forget(receipt.moved)
    remove_replayed(catalog, receipt)
    remove_replayed_stages(catalog, receipt)
    for dataset, modality in {(cell.dataset, cell.modality) for cell in catalog.registry.all_cells()}:
        move_reader_tags(catalog.registry, catalog.features, dataset, modality)
    _remove_superseded(store)
    receipt.done_at = datetime.now(UTC).isoformat()
    catalog.receipts.write(receipt)
    return receipt


def _forget_picks(catalog: Catalog, receipt: Receipt) -> None:
    """Take the samples out of the picks."""
    for name, lost in catalog.picks.forget(receipt.samples):
        pick = name.removesuffix(".parquet")
        receipt.rows[pick] = receipt.rows.get(pick, 0) + lost
        catalog.receipts.write(receipt)


def _begin(catalog: Catalog, identifier: str) -> Receipt:
    """Return the receipt to work on: that of a crashed forgetting, a new one, or a complete one."""
    earlier = [
        receipt
        for receipt in catalog.receipts.all()
        if identifier in (receipt.asked, *receipt.hashes, *receipt.samples)
    ]
    last = earlier[-1] if earlier else None
    if last is not None and not last.done_at:
        return last
    receipt = find_scope(catalog.store, identifier)
    if receipt.samples:
        adopt_tables(catalog)
        remove_superseded(catalog, timedelta(0))
        # Not repeated after a crash: by then the current version may be a copy of an earlier one.
        tag_current_failures(catalog)
        catalog.receipts.write(receipt)
        return receipt
    if last is None:
        raise UserError(f"no sample of this store has the id or the content hash {identifier}")
    return last


def _remove_superseded(store: Store) -> None:
    """Remove all untagged versions, files of broken commits, and unfinished objects."""
    for part in (*_PARTS, "blobs", "ledger", SECRETS):
        for name in store.tables(part):
            dataset = lance_datasets.open_dataset(store.uri(name))
            if dataset is not None:
                dataset.cleanup_old_versions(
                    older_than=timedelta(0), delete_unverified=True, error_if_tagged_old_versions=False
                )
    for name in list(store.unfinished_objects(timedelta(0))):
        store.remove(name)
