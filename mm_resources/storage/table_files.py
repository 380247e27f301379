"""The files of a Lance dataset: what they hold, whether they match their hashes, and removal of damage."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mm_resources.storage.file_hashes import (
    MANIFESTS,
    DamagedFiles,
    FileCheck,
    check_files,
    is_recorded,
    record_hashes,
)
from mm_resources.storage.filesystems import lance_options
from mm_resources.storage.lance_errors import CommitConflict, commit_conflicts, is_lance_error
from mm_resources.storage.store import Store

if TYPE_CHECKING:
    import lance
    import pyarrow as pa

# Lance counts manifests down from the largest 64-bit number, so that the latest one is listed first.
_LARGEST = (1 << 64) - 1
_TRIES = 10
# Files that a message names.
_NAMED = 3


@dataclass(frozen=True)
class Damage:
    """A damaged file of a table.

    Attributes:
        file: name below the dataset.
        cause: ``damaged`` or ``missing``.
        fragment: fragment whose rows it holds; None for a manifest or an index.
        rows: rows of that fragment.
    """

    file: str
    cause: str
    fragment: int | None
    rows: int


def data_files(fragments: Iterable[lance.FragmentMetadata]) -> list[str]:
    """Return the names of the data files of fragments."""
    return [f"data/{file.path}" for fragment in fragments for file in fragment.files]


def fragment_files(fragment: lance.LanceFragment) -> list[str]:
    """Return the names of a fragment's data files, and of the file of its deleted rows."""
    deleted = fragment.deletion_file()
    return [*data_files([fragment.metadata]), *([deleted] if deleted else [])]


def manifest_file(version: int) -> str:
    """Return the name of a version's manifest."""
    return f"_versions/{_LARGEST - version:020d}.manifest"


def index_files(dataset: lance.LanceDataset) -> list[str]:
    """Return the names of the files of a version's indexes."""
    store = Store(dataset.uri)
    indices = dataset.describe_indices()
    folders = {f"_indices/{segment.uuid}" for index in indices for segment in index.segments}
    return [f"{folder}/{name}" for folder in sorted(folders) for name in store.names(folder)]


def record_written(dataset: lance.LanceDataset, data: Iterable[str] = ()) -> None:
    """Store the hashes of what a commit wrote beside its rows: manifest, indexes, deleted rows.

    Args:
        data: data files that were written outside `write_fragments`.
    """
    more = [manifest_file(int(dataset.version)), *index_files(dataset)]
    more += [name for fragment in dataset.get_fragments() if (name := fragment.deletion_file())]
    fresh = [name for name in more if not is_recorded(dataset.uri, name)]
    record_hashes(dataset.uri, [*data, *fresh])


def damage_of(
    dataset: lance.LanceDataset, fragments: Collection[int] | None = None
) -> tuple[list[Damage], FileCheck]:
    """Compare the files of a version with their hashes.

    Args:
        fragments: fragments whose files are read alone; None reads manifest and indexes as well.
    """
    owners = owners_of(dataset)
    if fragments is not None:
        owners = {name: owner for name, owner in owners.items() if owner[0] in fragments}
    checked = check_files(dataset.uri, owners)
    return [Damage(name, cause, *owners[name]) for name, cause in checked.damaged.items()], checked


def owners_of(dataset: lance.LanceDataset) -> dict[str, tuple[int | None, int]]:
    """Return fragment and rows of each file of a version; (None, 0) for its manifest and indexes."""
    owners: dict[str, tuple[int | None, int]] = {
        name: (fragment.fragment_id, int(fragment.physical_rows))
        for fragment in dataset.get_fragments()
        for name in fragment_files(fragment)
    }
    others = [manifest_file(int(dataset.version)), *index_files(dataset)]
    return {**owners, **dict.fromkeys(others, (None, 0))}


def manifests_of(uri: str) -> list[str]:
    """Return the names of a dataset's manifests."""
    names = Store(uri).names(MANIFESTS.rstrip("/"))
    return [f"{MANIFESTS}{name}" for name in names if name.endswith(".manifest")]


def require_manifests(uri: str) -> None:
    """Check that the manifests of a dataset match their hashes.

    Raises:
        DamagedFiles: names them.
    """
    damaged = check_files(uri, manifests_of(uri)).damaged
    if damaged:
        files = ", ".join(list(damaged)[:_NAMED])
        raise DamagedFiles(
            f"{uri} cannot be opened: {files} differs from its hash; run `mm doctor --verify --mend`, which "
            "restores it"
        )


def require_intact(
    dataset: lance.LanceDataset, name: str, causes: Collection[str] = ("damaged", "missing")
) -> None:
    """Check that the files of a version match their hashes.

    Args:
        name: of the table, for people.
        causes: those that count.

    Raises:
        DamagedFiles: names the table, the files and their rows.
    """
    damaged = [each for each in damage_of(dataset)[0] if each.cause in causes]
    if damaged:
        files = ", ".join(f"{each.file} ({each.cause})" for each in damaged[:_NAMED])
        rows = sum({each.fragment: each.rows for each in damaged}.values())
        raise DamagedFiles(
            f"{name} at version {dataset.version}: {len(damaged):,} files with {rows:,} rows differ from "
            f"their hashes: {files}; run `mm doctor --verify --mend`, which computes again what it can"
        )


def read_sound_fragments(dataset: lance.LanceDataset, where: str | None) -> tuple[list[pa.Table], int]:
    """Return the rows of the fragments that can be read, and the number of rows of the others."""
    found, lost = [], 0
    for fragment in dataset.get_fragments():
        try:
            found.append(fragment.to_table(filter=where))
        except BaseException as error:
            if not is_lance_error(error):
                raise
            lost += int(fragment.physical_rows)
    return found, lost


def drop_fragments(uri: str, fragments: Collection[int]) -> int:
    """Remove fragments from a dataset that grows by appends, in one commit; return their rows."""
    import lance

    for tries_left in range(_TRIES, -1, -1):
        dataset = lance.dataset(uri, storage_options=lance_options(uri))
        lost = {each.fragment_id: each.physical_rows for each in dataset.get_fragments()}
        lost = {number: rows for number, rows in lost.items() if number in fragments}
        if not lost:
            return 0
        operation = lance.LanceOperation.Delete([], list(lost), "damaged")
        try:
            with commit_conflicts():
                committed = lance.LanceDataset.commit(
                    uri,
                    lance.Transaction(int(dataset.version), operation),
                    storage_options=lance_options(uri),
                    max_retries=0,
                )
        except CommitConflict:
            if not tries_left:
                raise
            continue
        record_written(committed)
        return sum(lost.values())
    raise AssertionError("unreachable")
