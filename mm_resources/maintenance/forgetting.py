"""Forgetting: content goes from every blob, cache, table, version and pin, and is refused from then on.

What is removed is known by its hash. All samples that ever had it lose their rows, in the current version of each table and
in every version that a tag keeps: these are written anew without them, indexes included, the tags move to what was
written, the pins follow their tags, and then all that is superseded is removed. A tag marks the current version of a table
while earlier ones are written on top of it, so that a crash half-way loses nothing; the same command completes it.

Nothing else may be at work on the store meanwhile.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa

from mm_embed_kernels import sql
from mm_embed_kernels.errors import UserError
from mm_embed_kernels.identity import digest
from mm_resources.blobs.forgotten import Receipt
from mm_resources.catalog import Catalog
from mm_resources.cell import Cell
from mm_resources.features import vector_indexes
from mm_resources.ledger.accounting import account
from mm_resources.maintenance.erasure import erase
from mm_resources.maintenance.upkeep import CURRENT, hold_failures
from mm_resources.registry.pins import Pin
from mm_resources.storage import lance_datasets
from mm_resources.storage.store import Store
from mm_resources.tables.stage_tables import META

# Failures before the stages that name their versions.
_PARTS = ("failures", "stages", "features", "registry/listings", "cache")
_KEPT = "before-forgetting"
_INDEXES = {"IvfHnswSq": vector_indexes.GRAPH, "IvfSq": vector_indexes.LISTS}
_IDENTITY = {"sample_id": pa.string(), "content_hash": pa.string()}


def forget(catalog: Catalog, identifier: str) -> Receipt:
    """Forget a content hash, or all contents that a sample has had; again after a crash, or to learn that it is done.

    Raises:
        UserError: when the store has never heard of it.
    """
    receipts, store = catalog.receipts, catalog.store
    known = [
        receipt
        for receipt in receipts.all()
        if identifier in (receipt.asked, *receipt.hashes, *receipt.samples)
    ]
    if known and known[-1].done_at and not _found(store, identifier).samples:
        return known[-1]
    receipt = known[-1] if known and not known[-1].done_at else _found(store, identifier)
    if not receipt.samples:
        raise UserError(f"no sample of this store has the id or the content hash {identifier}")
    if receipt not in known:
        # Once: what is current may be an earlier version's copy after a crash.
        hold_failures(catalog)
        receipts.write(receipt)
    receipt.blobs += erase(catalog.blobs, receipt.hashes)
    work = _Forgetting(catalog, receipt)
    for part in _PARTS:
        for name in list(store.tables(part)):
            work.rewrite(name)
    work.move_pins()
    _remove_superseded(store)
    receipt.done_at = datetime.now(UTC).isoformat()
    receipts.write(receipt)
    return receipt


def _found(store: Store, identifier: str) -> Receipt:
    """What is to go: contents, the samples that have them, and the cache keys that were made of their texts."""
    if not identifier.isalnum():
        raise UserError(f"{identifier!r} is neither a content hash nor a sample id")
    hashes, samples = ({identifier}, set()) if len(identifier) == 64 else (set(), {identifier})
    for _ in range(2):  # the contents of the sample, then the samples of these contents
        for row in _rows(
            store, ("stages/raw_assets", "registry/listings"), _IDENTITY, _where(_IDENTITY, hashes, samples)
        ):
            samples.add(row["sample_id"])
            hashes |= {row["content_hash"]} - {None} if row.get("content_hash") else set()
    named = any(
        True
        for _ in _rows(
            store, ("stages/raw_assets", "registry/listings"), _IDENTITY, _where(_IDENTITY, hashes, samples)
        )
    )
    number = f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{digest('forget', identifier)[:8]}"
    found = Receipt(
        number, identifier, datetime.now(UTC).isoformat(), sorted(hashes), sorted(samples) if named else []
    )
    found.keys = sorted(_keys(store, found)) if named else []
    return found


def _keys(store: Store, receipt: Receipt) -> set[str]:
    """Keys of the compute cache that name a text of the samples instead of their content."""
    where = _where(_IDENTITY, receipt.hashes, receipt.samples)
    keys = {
        row["cache_key"] for row in _rows(store, ("stages/embeddings",), {"cache_key": pa.string()}, where)
    }
    texts = [
        row["text"] for row in _rows(store, ("stages/segments", "features"), {"text": pa.string()}, where)
    ]
    content = _content_key(receipt.hashes)
    for row in _rows(store, ("cache",), {"text": pa.string(), "segments": None}, content):
        texts += [row.get("text"), *(segment["text"] for segment in row.get("segments") or [])]
    return keys | {f"{hashlib.sha256(text.encode()).hexdigest()}#text" for text in texts if text}


def _rows(
    store: Store, folders: tuple[str, ...], columns: dict[str, Any], where: str
) -> Iterator[dict[str, Any]]:
    """The rows that meet a filter, of all versions of the tables that have its columns; of the cache, which only grows, of the last."""
    for name in [table for folder in folders for table in store.tables(folder)]:
        latest = lance_datasets.open_dataset(store.uri(name))
        versions = [] if latest is None else [int(each["version"]) for each in latest.versions()]
        for version in versions[-1:] if name.startswith("cache/") else versions:
            dataset = lance_datasets.open_dataset(store.uri(name), version)
            if dataset is None or not (
                own := [column for column in columns if column in dataset.schema.names]
            ):
                continue
            condition = _present(where, dataset.schema.names)
            if condition:
                yield from (
                    row
                    for batch in lance_datasets.reader(dataset, dataset.schema, own, condition)
                    for row in batch.to_pylist()
                )


def _where(columns: dict[str, Any], hashes: Any, samples: Any) -> str:
    named = [("sample_id", samples), ("content_hash", hashes)]
    parts = [
        f"{column} IN ({', '.join(map(sql.literal, sorted(values)))})" for column, values in named if values
    ]
    return " OR ".join(parts)


def _content_key(hashes: list[str]) -> str:
    return " OR ".join(f"key LIKE {sql.literal(f'{digest}%')}" for digest in hashes)


def _present(where: str, names: list[str]) -> str:
    """The alternatives of a filter whose column a table has."""
    return " OR ".join(part for part in where.split(" OR ") if part and part.split(" ", 1)[0] in names)


class _Forgetting:
    """One receipt at work on the tables and pins of a store."""

    def __init__(self, catalog: Catalog, receipt: Receipt) -> None:
        self.store, self.receipt, self.receipts = catalog.store, receipt, catalog.receipts
        self.features, self.registry = catalog.features, catalog.registry
        self.tables, self.failures = catalog.tables, catalog.failures

    def rewrite(self, name: str) -> None:
        """Write a table anew without the samples, for each version that is held, the current one last."""
        uri = self.store.uri(name)
        dataset = lance_datasets.open_dataset(uri)
        if dataset is None:
            return
        tags = dataset.tags.list()
        if _KEPT not in tags:
            dataset.tags.create(_KEPT, int(dataset.version))
            tags = dataset.tags.list()
        held: dict[int, list[str]] = {}
        for tag, named in tags.items():
            held.setdefault(int(named["version"]), []).append(tag)
        current = int(tags[_KEPT]["version"])
        if any(self._touches(name, version, held[version]) for version in held):
            self._note(name, 0)
            for version in sorted(held, key=lambda each: (each == current, each)):
                gone, new = self._without(name, version, held[version])
                for tag in held[version]:
                    lance_datasets.tag(uri, new, tag)
                self._note(name, gone if version == current else 0)
        dataset.tags.delete(_KEPT)

    def _note(self, name: str, gone: int) -> None:
        """On the receipt before the table is touched, since what names an old version of it shall be told why it is gone."""
        self.receipt.rows[_short(name)] = self.receipt.rows.get(_short(name), 0) + gone
        self.receipts.write(self.receipt)

    def _condition(self, name: str, names: list[str]) -> str:
        found = [_present(_where(_IDENTITY, self.receipt.hashes, self.receipt.samples), names)]
        if name.startswith("cache/"):
            found.append(_content_key(self.receipt.hashes))
            found += (
                [f"key IN ({', '.join(map(sql.literal, self.receipt.keys))})"] if self.receipt.keys else []
            )
        return " OR ".join(filter(None, found))

    def _touches(self, name: str, version: int, tags: list[str]) -> bool:
        dataset = lance_datasets.open_dataset(self.store.uri(name), version)
        assert dataset is not None
        condition = self._condition(name, dataset.schema.names)
        return (
            bool(condition and dataset.count_rows(condition))
            or self._meta(name, dataset, tags, None) is not None
        )

    def _without(self, name: str, version: int, tags: list[str]) -> tuple[int, int]:
        """Write a version again on top of its table; (rows that went, the new version)."""
        uri = self.store.uri(name)
        dataset, latest = lance_datasets.open_dataset(uri, version), lance_datasets.open_dataset(uri)
        assert dataset is not None
        assert latest is not None
        condition = self._condition(name, dataset.schema.names)
        keep = f"NOT coalesce({condition}, false)" if condition else None
        rows = lance_datasets.reader(dataset, dataset.schema, where=keep)
        left = 0

        def counted() -> Iterator[pa.Table]:
            nonlocal left
            for batch in rows:
                left += batch.num_rows
                yield pa.Table.from_batches([batch])

        fragments = lance_datasets.write_fragments(uri, dataset.schema, lance_datasets.rows_of(counted()))
        schema = self._meta(name, dataset, tags, left) or dataset.schema
        new = lance_datasets.commit(
            uri, schema, fragments, int(latest.version), f"forget {self.receipt.number}"
        )
        return int(dataset.count_rows()) - left, self._indexed(name, version, new)

    def _meta(self, name: str, dataset: Any, tags: list[str], rows: int | None) -> pa.Schema | None:
        """The schema of a stage's table with what the stage now says of itself: nothing is taken for done any more, and its
        failures stand in another version. None where that would change nothing (`rows` unknown), or for any other table.
        """
        raw = (dataset.schema.metadata or {}).get(META)
        if not name.startswith("stages/") or not raw:
            return None
        meta = json.loads(raw)
        failures = (
            lance_datasets.open_dataset(self.store.uri(f"failures/{name.removeprefix('stages/')}"))
            if meta["failures"]
            else None
        )
        known = failures.tags.list() if failures is not None else {}
        # A version that is current and pinned names the same failures by both tags.
        tag = next(
            (CURRENT if tag == _KEPT else tag for tag in sorted(tags, key=lambda tag: tag != _KEPT)), CURRENT
        )
        version = int(known[tag]["version"]) if tag in known else meta["failures"]
        if rows is None:
            return dataset.schema if version != meta["failures"] else None
        at = (
            lance_datasets.open_dataset(self.store.uri(f"failures/{name.removeprefix('stages/')}"), version)
            if version
            else None
        )
        counted = (
            {"failed": at.count_rows(), "retryable": at.count_rows("retryable")} if at is not None else {}
        )
        left = rows if meta["row_count"] == meta["rows"] else meta["row_count"]
        meta = {**meta, **counted, "failures": version, "inputs": "", "rows": rows, "row_count": left}
        return dataset.schema.with_metadata({META: json.dumps(meta)})

    def _indexed(self, name: str, version: int, new: int) -> int:
        """Give a feature table's new version the indexes that the old one had; the version that has them."""
        if not name.startswith("features/"):
            return new
        table = self.features.database.open_table(_short(name))
        table.checkout(version)
        kinds = {column: found.index_type for found in table.list_indices() for column in found.columns}
        if not kinds:
            return new
        index = _INDEXES[kinds["vector"]] if "vector" in kinds else vector_indexes.EXACT
        return vector_indexes.build(
            self.features.database.open_table(_short(name)), new, index, "text" in kinds
        )

    # -- pins

    def move_pins(self) -> None:
        """Let every pin name what its tags name now, with counts and digests of what is left."""
        for dataset_version in self.registry.datasets():
            for cell in self.registry.cells(dataset_version):
                for number in self.registry.pins(cell):
                    pin = self.registry.pin(cell, number)
                    if pin is not None and (moved := self._moved(cell, pin)) != pin:
                        self.receipt.pins = sorted({*self.receipt.pins, f"{cell.partition_key} pin {number}"})
                        self.receipts.write(self.receipt)
                        self.registry.replace(
                            cell, replace(moved, forgotten=sorted({*pin.forgotten, self.receipt.number}))
                        )

    def _moved(self, cell: Cell, pin: Pin) -> Pin:
        tables = []
        for table in pin.tables:
            version = self._tagged(f"features/{table.table}.lance", table.tag) or table.lance_version
            if version != table.lance_version:
                rows, content = self.features.measured(table.table, version)
                table = replace(table, lance_version=version, rows=rows, digest=content)
            tables.append(table)
        stages = {
            asset: {
                **stage,
                "lance_version": self._tagged(f"stages/{asset}/{cell.path}.lance", f"pin-{pin.number}")
                or stage["lance_version"],
            }
            for asset, stage in pin.stages.items()
        }
        moved = replace(pin, tables=tables, stages=stages)
        if moved == pin or not stages:
            return moved
        versions = {asset: int(stage["lance_version"]) for asset, stage in stages.items()}
        published = self.features.rows(moved, ["sample_id"])
        counted = account(
            self.tables, self.failures, cell, published, sum(table.rows for table in tables), versions
        )
        return replace(moved, accounting=asdict(counted))

    def _tagged(self, name: str, tag: str) -> int:
        dataset = lance_datasets.open_dataset(self.store.uri(name))
        known = {} if dataset is None else dataset.tags.list()
        return int(known[tag]["version"]) if tag in known else 0


def _short(name: str) -> str:
    """A table as people know it: of a feature table, its name in LanceDB."""
    return name.removeprefix("features/").removesuffix(".lance")


def _remove_superseded(store: Store) -> None:
    """Remove all versions that no tag keeps, files of broken commits, and objects that nobody has finished."""
    for part in (*_PARTS, "blobs", "ledger"):
        for name in store.tables(part):
            dataset = lance_datasets.open_dataset(store.uri(name))
            if dataset is not None:
                dataset.cleanup_old_versions(
                    older_than=timedelta(0), delete_unverified=True, error_if_tagged_old_versions=False
                )
    for name in list(store.unfinished(timedelta(0))):
        store.remove(name)
