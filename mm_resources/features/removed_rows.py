"""Removal of rows beside their readers: reading a forgotten version ends with an error of one line."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from mm_embed_kernels.errors import UserError
from mm_resources.blobs.receipts import Receipts
from mm_resources.features.table_paths import table_at, table_path
from mm_resources.registry.pins import Pin
from mm_resources.storage import lance_datasets
from mm_resources.storage.file_hashes import DamagedFiles
from mm_resources.storage.lance_errors import is_missing_file
from mm_resources.tables.stage_tables import NotMaterialized


class RemovedRows(UserError):
    """Rows that a reader had chosen were forgotten since; the pins name the rows that are left."""


def removed_rows(receipts: Receipts, table: str, version: int) -> RemovedRows | None:
    """Return the error of a version of a table that is gone; None where no row of the table was forgotten.

    Args:
        table: name of the table in the store; of a feature table, its name in LanceDB will do.
    """
    short = table_at(table)
    reason = receipts.removal_of(short)
    return (
        RemovedRows(f"table {short} is not in this store at version {version}: {reason}") if reason else None
    )


def removed_content(receipts: Receipts, digest: str) -> RemovedRows | None:
    """Return the error of reading a content; None where it was not forgotten."""
    receipt = receipts.tombstones().get(digest)
    return (
        RemovedRows(
            f"content {digest[:16]} was forgotten (receipt {receipt}) after its rows were chosen; "
            "make the training set again"
        )
        if receipt
        else None
    )


def versions_of(pin: Pin) -> list[tuple[str, int]]:
    """Return the names in the store and the versions of all tables that a pin names."""
    stages = [stage_version(pin, asset) for asset in pin.stages]
    return [*((table_path(each.table), each.lance_version) for each in pin.tables), *stages]


def stage_version(pin: Pin, asset: str) -> tuple[str, int]:
    """Return the name in the store and the Lance version of a stage's table that a pin names."""
    place = pin.place(asset)
    return str(place["table"]), int(place["lance_version"])


@contextmanager
def removal_errors(receipts: Receipts, tables: Iterable[tuple[str, int]]) -> Iterator[None]:
    """Raise an error of reading versions that were forgotten meanwhile as `RemovedRows`.

    A reader that has opened a version goes on until it needs a file that is gone; what it then meets depends
    on the file and on the library that reads it. Any other error passes, that of damaged files included.

    Args:
        tables: names in the store, and versions, that are read.
    """
    try:
        yield
    except RemovedRows:
        raise
    except Exception as error:
        if not (isinstance(error, DamagedFiles | NotMaterialized) or is_missing_file(error)):
            raise
        for name, version in tables:
            removed = removed_rows(receipts, name, version)
            if removed and not _is_kept(receipts.store.uri(name), version):
                raise removed from None
        raise


def _is_kept(uri: str, version: int) -> bool:
    """Return whether a tag keeps a version, as it does each published one."""
    dataset = lance_datasets.open_dataset(uri)
    return dataset is not None and version in {int(tag["version"]) for tag in dataset.tags.list().values()}
