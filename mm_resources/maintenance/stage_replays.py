"""Forgetting in stage tables: their named versions are written again, into a new table, without the rows.

As with feature tables (`lineage_replays`), a row that a version has lost is still in the file of its base, so
that no file of the old table stays. The receipt names where each version has gone; refs and pins follow it,
and the old table is removed. Until then it stays as it is, so that a forgetting that was killed is completed
by the next.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from mm_embed_kernels import contracts
from mm_embed_kernels.contracts import Contract
from mm_resources.blobs.receipts import Receipt
from mm_resources.catalog import Catalog
from mm_resources.cell import Cell
from mm_resources.lineages import commits
from mm_resources.maintenance.forgetting_scope import row_condition
from mm_resources.maintenance.held_rows import holds_rows
from mm_resources.maintenance.stage_versions import FOLDER, NamedVersions, named_versions
from mm_resources.storage import dataset_versions, lance_datasets
from mm_resources.storage.store import remove_tree
from mm_resources.tables.stage_refs import StageMeta, StageRef
from mm_resources.tables.stage_tables import META, failures_path
from mm_resources.tables.stage_writer import StageWriter

if TYPE_CHECKING:
    import lance


def replay_stages(catalog: Catalog, receipt: Receipt) -> None:
    """Write each stage table that holds rows of a receipt again, without them; refs still name the old."""
    named = named_versions(catalog)
    for name in list(catalog.store.tables(FOLDER)):
        if _is_replayed(catalog, named, receipt, name) or not holds_rows(catalog, receipt, name):
            continue
        # Recorded before anything changes, for readers of old manifests.
        receipt.rows.setdefault(_stem(name), 0)
        catalog.receipts.write(receipt)
        if named.versions(name):
            _replay(catalog, receipt, named, name)
            catalog.receipts.write(receipt)


def move_refs(catalog: Catalog, receipt: Receipt) -> None:
    """Point each ref to the rows and failures that remain, with their counts; its stage is out of date."""
    refs = catalog.tables.refs
    for cell, asset, _, ref in list(refs.every()):
        if isinstance(ref, Exception):
            raise ref
        place = moved_place(receipt, ref.table, ref.lance_version)
        meta = _moved_meta(catalog, receipt, asset, cell, ref.meta)
        if place:
            dataset = lance_datasets.open_dataset(catalog.store.uri(place["table"]), place["lance_version"])
            assert dataset is not None
            meta = _with_rows(meta, int(dataset.count_rows()))
        moved: StageRef = replace(ref, **place, meta=meta)
        if moved != ref:
            # What it was written on is gone.
            refs.replace(asset, cell, replace(moved, meta=replace(meta, inputs=""), base=""))


def remove_replayed_stages(catalog: Catalog, receipt: Receipt) -> None:
    """Remove the tables that hold rows of a receipt, and that no ref or pin names any more."""
    named = named_versions(catalog)
    for name in list(catalog.store.tables(FOLDER)):
        if _stem(name) in receipt.rows and not named.versions(name):
            remove_tree(catalog.store, name)


def moved_place(receipt: Receipt, table: str, version: int) -> dict[str, Any]:
    """Return table and Lance version where the rows of a version have gone; {} where they stay."""
    moved = receipt.moved.get(f"{_stem(table)}@{version}")
    return {"table": moved["table"], "lance_version": moved["lance_version"]} if moved else {}


def _moved_meta(catalog: Catalog, receipt: Receipt, asset: str, cell: Cell, meta: StageMeta) -> StageMeta:
    """Return metadata that name the failures that remain."""
    name, version = failures_path(asset, cell), meta.failures
    while moved := moved_place(receipt, name, version):
        version = moved["lance_version"]
    if version == meta.failures:
        return meta
    failures = lance_datasets.open_dataset(catalog.store.uri(name), version)
    assert failures is not None
    failed, retryable = int(failures.count_rows()), int(failures.count_rows("retryable"))
    return replace(meta, failures=version, failed=failed, retryable=retryable)


def _with_rows(meta: StageMeta, rows: int) -> StageMeta:
    return replace(meta, rows=rows, row_count=rows if meta.row_count == meta.rows else meta.row_count)


def _stem(name: str) -> str:
    return name.removesuffix(".lance")


def _is_replayed(catalog: Catalog, named: NamedVersions, receipt: Receipt, name: str) -> bool:
    """Return whether all named versions of a table have been written again, and are there."""
    moved = [moved_place(receipt, name, version) for version in named.versions(name)]
    return bool(moved) and all(
        each
        and lance_datasets.open_dataset(catalog.store.uri(each["table"]), each["lance_version"]) is not None
        for each in moved
    )


def _replay(catalog: Catalog, receipt: Receipt, named: NamedVersions, name: str) -> None:
    """Write the named versions of a table again, oldest first, each on top of the one before it."""
    store, asset = catalog.store, name.split("/")[1]
    new = _new_name(catalog, named, receipt, name)
    moved: dict[str, dict[str, object]] = {}
    tags: dict[int, list[str]] = {}
    latest = lance_datasets.open_dataset(store.uri(name))
    for tag, content in (latest.tags.list() if latest is not None else {}).items():
        tags.setdefault(int(content["version"]), []).append(tag)
    before: list[tuple[str, int]] = []
    for version in named.versions(name):
        dataset = lance_datasets.open_dataset(store.uri(name), version)
        assert dataset is not None
        table, written, rows = _write(catalog, receipt, asset, new, dataset, before)
        for tag in tags.get(version, []):
            dataset_versions.tag(store.uri(table), written, tag)
        moved[f"{_stem(name)}@{version}"] = {"table": table, "lance_version": written, "rows": rows}
        before = [(table, written)]
        receipt.rows[_stem(name)] = int(dataset.count_rows()) - rows
    receipt.moved |= moved


def _write(
    catalog: Catalog,
    receipt: Receipt,
    asset: str,
    new: str,
    dataset: lance.LanceDataset,
    before: list[tuple[str, int]],
) -> tuple[str, int, int]:
    """Write the remaining rows of a version; return their table, Lance version and number."""
    condition = row_condition(receipt, new, dataset.schema.names)
    where = f"NOT coalesce({condition}, false)" if condition else None
    message = f"forget {receipt.number}"

    def tables() -> Iterator[pa.Table]:
        for batch in lance_datasets.reader(dataset, dataset.schema.remove_metadata(), where=where):
            yield pa.Table.from_batches([batch])

    raw = (dataset.schema.metadata or {}).get(META)
    if raw:
        # A table of before refs states itself what pins name of it.
        _, _, *parts = new.removesuffix(".lance").split("/")
        cell = Cell(parts[0], parts[1], parts[2].rsplit("-", 1)[0])
        uri, left = catalog.store.uri(new), int(dataset.count_rows(where) if where else dataset.count_rows())
        meta = _moved_meta(catalog, receipt, asset, cell, StageMeta(**json.loads(raw)))
        meta = replace(_with_rows(meta, left), inputs="")
        fragments = lance_datasets.write_fragments(
            uri, dataset.schema.remove_metadata(), lance_datasets.batches_of(tables()), mode="overwrite"
        )
        schema = dataset.schema.with_metadata({META: json.dumps(vars(meta))})
        return new, commits.commit_whole(uri, schema, fragments, message), left
    # All columns: rows of other makers are other rows here.
    key = getattr(contracts, asset.upper()).key
    contract = Contract(asset, dataset.schema.remove_metadata(), key, (key,))
    found = StageWriter(catalog.store, contract, message).write(new, tables(), before)
    return found.table, found.lance_version, found.rows


def _new_name(catalog: Catalog, named: NamedVersions, receipt: Receipt, name: str) -> str:
    """Return a name for a new table; what a killed forgetting has left there is removed."""
    taken = catalog.receipts.tables() | {str(each["table"]) for each in receipt.moved.values()}
    stem = re.sub(r"-\d+$", "", _stem(name))
    for number in range(2, len(named.refs) + len(taken) + 3):
        new = f"{stem}-{number}.lance"
        if not named.versions(new) and not {new, _stem(new)} & taken:
            remove_tree(catalog.store, new)
            return new
    raise AssertionError("unreachable")
