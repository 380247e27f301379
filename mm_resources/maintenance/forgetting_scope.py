"""The scope of forgetting: contents, their samples, and the cache rows that were computed from them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from mm_embed_kernels import sql
from mm_embed_kernels.errors import UserError
from mm_embed_kernels.identity import content_hash, digest
from mm_resources.blobs.receipts import Receipt
from mm_resources.lineages.fragments import distinct_fragments
from mm_resources.storage import lance_datasets
from mm_resources.storage.secret_table import split_locator
from mm_resources.storage.store import Store

_HASH_LENGTH = 64
# Tables that list the contents of samples.
_LISTINGS = ("stages/raw_assets", "registry/listings")


@dataclass(frozen=True)
class Predicate:
    """A SQL condition on one column."""

    column: str
    condition: str


def any_of(predicates: Iterable[Predicate], columns: Collection[str]) -> str:
    """Return SQL that holds where one of the predicates on `columns` does; "" where there is none."""
    return " OR ".join(each.condition for each in predicates if each.column in columns)


def row_condition(receipt: Receipt, name: str, columns: Collection[str]) -> str:
    """Return SQL for the rows of a table that a receipt removes; "" where it cannot have any.

    Args:
        name: name of the table in the store.
        columns: its columns.
    """
    predicates = _identity(receipt.hashes, receipt.samples)
    if name.startswith("cache/"):
        predicates += _content_keys(receipt.hashes)
        predicates += _members("key", receipt.keys)
    return any_of(predicates, columns)


def find_scope(store: Store, identifier: str) -> Receipt:
    """Return a new receipt with the contents, samples and cache keys to forget.

    Its samples are empty when no version of a table names the identifier.

    Raises:
        UserError: for a word that is neither a content hash nor a sample id.
    """
    if not identifier.isalnum():
        raise UserError(f"{identifier!r} is neither a content hash nor a sample id")
    hashes, samples = ({identifier}, set()) if len(identifier) == _HASH_LENGTH else (set(), {identifier})
    for _ in range(2):  # the contents of the sample, then the samples of these contents
        for row in _rows(store, _LISTINGS, ("sample_id", "content_hash"), _identity(hashes, samples)):
            samples.add(row["sample_id"])
            hashes |= {row["content_hash"]} if row.get("content_hash") else set()
    listed = _rows(store, _LISTINGS, ("sample_id", "content_hash"), _identity(hashes, samples))
    is_known = next(listed, None) is not None
    now = datetime.now(UTC)
    receipt = Receipt(
        number=f"{now:%Y%m%dT%H%M%S}-{digest('forget', identifier)[:8]}",
        asked=identifier,
        begun_at=now.isoformat(),
        hashes=sorted(hashes),
        samples=sorted(samples) if is_known else [],
    )
    receipt.keys = sorted(_text_keys(store, receipt)) if is_known else []
    return receipt


def secret_ids(store: Store, receipt: Receipt) -> set[str]:
    """Return the ids of the URLs with secrets, by which the samples would be fetched again."""
    samples = _identity(receipt.hashes, receipt.samples)
    folders = ("registry/listings", "stages/dataset_registry")
    found = (split_locator(row["locator"] or "")[1] for row in _rows(store, folders, ("locator",), samples))
    return set(filter(None, found))


def _text_keys(store: Store, receipt: Receipt) -> set[str]:
    """Return the cache keys that are made of a text of the samples instead of their content hash."""
    samples = _identity(receipt.hashes, receipt.samples)
    keys = {row["cache_key"] for row in _rows(store, ("stages/embeddings",), ("cache_key",), samples)}
    texts = [row["text"] for row in _rows(store, ("stages/segments", "features"), ("text",), samples)]
    for row in _rows(store, ("cache",), ("text", "segments"), _content_keys(receipt.hashes)):
        texts += [row.get("text"), *(segment["text"] for segment in row.get("segments") or [])]
    return keys | {f"{content_hash(text.encode())}#text" for text in texts if text}


def _rows(
    store: Store, folders: tuple[str, ...], columns: tuple[str, ...], predicates: list[Predicate]
) -> Iterator[dict[str, Any]]:
    """Yield the rows that pass a predicate, of all versions of the tables that have one of `columns`.

    Of tables whose versions share files, each file is read once, with the rows that its versions have lost:
    these are still stored. Of the cache, which only grows, the latest version is read.
    """
    for name in [table for folder in folders for table in store.tables(folder)]:
        if name.startswith(("stages/", "features/")):
            yield from _stored_rows(store.uri(name), columns, predicates)
            continue
        latest = lance_datasets.open_dataset(store.uri(name))
        versions = [] if latest is None else [int(each["version"]) for each in latest.versions()]
        for version in versions[-1:] if name.startswith("cache/") else versions:
            dataset = lance_datasets.open_dataset(store.uri(name), version)
            if dataset is None:
                continue
            own = [column for column in columns if column in dataset.schema.names]
            condition = any_of(predicates, dataset.schema.names)
            if own and condition:
                for batch in lance_datasets.reader(dataset, dataset.schema, own, condition):
                    yield from batch.to_pylist()


def _stored_rows(uri: str, columns: tuple[str, ...], predicates: list[Predicate]) -> Iterator[dict[str, Any]]:
    """Yield the rows of the files of a table, deleted ones included, that pass a predicate."""
    for dataset, fragments in distinct_fragments(uri):
        names = dataset.schema.names
        own = [column for column in columns if column in names]
        condition = any_of(predicates, names)
        if not own or not condition:
            continue
        read = list(dict.fromkeys([*own, *(each.column for each in predicates if each.column in names)]))
        scan = dataset.scanner(columns=read, fragments=fragments, with_row_id=True, include_deleted_rows=True)
        chosen = ", ".join(f'"{column}"' for column in own)
        with sql.query(f"SELECT {chosen} FROM stored WHERE {condition}", stored=scan.to_reader()) as found:
            for batch in found:
                yield from batch.to_pylist()


def _identity(hashes: Iterable[str], samples: Iterable[str]) -> list[Predicate]:
    """Return the predicates for rows of samples or contents."""
    return [*_members("sample_id", samples), *_members("content_hash", hashes)]


def _members(column: str, values: Iterable[str]) -> list[Predicate]:
    some = sql.literals(sorted(values))
    return [Predicate(column, f"{column} IN ({some})")] if some else []


def _content_keys(hashes: Iterable[str]) -> list[Predicate]:
    """Return the predicates for cache rows whose key begins with a content hash."""
    return [Predicate("key", f"key LIKE {sql.literal(f'{content}%')}") for content in hashes]
