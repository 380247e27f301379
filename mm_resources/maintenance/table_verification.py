"""Verification of tables: compare the files of every Lance dataset of the store with their hashes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from mm_resources.storage import lance_datasets
from mm_resources.storage.file_hashes import DamagedFiles, check_files
from mm_resources.storage.lance_errors import cause_of, is_lance_error
from mm_resources.storage.secret_table import PART as SECRETS
from mm_resources.storage.store import Store
from mm_resources.storage.table_files import Damage, manifests_of, owners_of

PARTS = ("blobs", "cache", "failures", "features", "ledger", "registry", "reviews", "stages", SECRETS)


@dataclass
class TableCheck:
    """The result of verifying one table: its current version, and those that tags keep.

    Attributes:
        table: name below the store's root.
        files: intact files.
        bytes: their size.
        unverified: files without a hash, written by an older version.
        damaged: damaged and missing files, by version of the table.
        current: the current version; 0 where the table cannot be opened.
        error: why it cannot be opened; "" where it can.
    """

    table: str
    files: int = 0
    bytes: int = 0
    unverified: int = 0
    damaged: dict[int, list[Damage]] = field(default_factory=dict)
    current: int = 0
    error: str = ""

    @property
    def is_damaged(self) -> bool:
        """True where a file of the table differs from its hash, or the table cannot be opened."""
        return bool(self.error) or any(self.damaged.values())

    def rows(self) -> list[dict[str, Any]]:
        """Each damaged file, with its cause and rows, as a row for people."""
        found = [
            {"table": self.table, "file": each.file, "rows": each.rows, "cause": each.cause}
            for each in dict.fromkeys(each for damage in self.damaged.values() for each in damage)
        ]
        error = {"table": self.table, "file": "", "rows": 0, "cause": self.error}
        return [*found, *([error] if self.error else [])]


def verify_tables(store: Store) -> Iterator[TableCheck]:
    """Read the files of all tables of a store, and yield the result for each table."""
    for part in PARTS:
        for name in store.tables(part):
            yield verify_table(store, name)


def verify_table(store: Store, name: str) -> TableCheck:
    """Read the files of one table."""
    uri, result = store.uri(name), TableCheck(name)
    checked = check_files(uri, manifests_of(uri))
    # A damaged manifest is not read for its version, so it counts as version 0.
    for file, cause in checked.damaged.items():
        result.damaged.setdefault(0, []).append(Damage(file, cause, None, 0))
    try:
        _verify_versions(uri, result)
    except BaseException as error:
        if not is_lance_error(error) and not isinstance(error, DamagedFiles):
            raise
        result.error = cause_of(error)
    return result


def _verify_versions(uri: str, result: TableCheck) -> None:
    dataset = lance_datasets.open_dataset(uri)
    if dataset is None:
        return
    result.current = int(dataset.version)
    versions = {result.current, *(int(tag["version"]) for tag in dataset.tags.list().values())}
    owners = {}
    for version in versions:
        opened = dataset if version == result.current else lance_datasets.open_dataset(uri, version)
        if opened is not None:
            owners[version] = owners_of(opened)
    checked = check_files(uri, [name for files in owners.values() for name in files])
    result.files, result.bytes, result.unverified = (
        len(checked.verified),
        checked.bytes,
        len(checked.unverified),
    )
    for version, files in owners.items():
        found = [
            Damage(name, checked.damaged[name], *files[name]) for name in files if name in checked.damaged
        ]
        if found:
            result.damaged[version] = found
