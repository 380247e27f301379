"""Commits to a lineage: new files, then restore, update and indexes, each exactly the next version."""

from __future__ import annotations

import random
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from mm_resources.storage import lance_datasets
from mm_resources.storage.lance_errors import CommitConflict, Fenced, commit_conflicts
from mm_resources.storage.table_files import record_written

if TYPE_CHECKING:
    import lance

Addresses = np.ndarray[Any, np.dtype[np.uint64]]

# How often a burst is repeated, and by how much the longest pause before a repetition grows each time.
_TRIES, _PAUSE_SECONDS = 40, 0.05
# Bits of a row's address that are its offset in the fragment.
_OFFSET_BITS = 32


class Raced(Exception):
    """Another writer committed within the burst; what was committed is garbage that no pin names."""


@dataclass(frozen=True)
class Change:
    """Files that make a version of its base, written and not committed.

    Attributes:
        removed: ids of the fragments that go, since all of their rows do, or have moved.
        updated: fragments with more deleted rows.
        added: new fragments.
        metadata: of the schema, where it differs.
    """

    removed: list[int] = field(default_factory=list)
    updated: list[lance.FragmentMetadata] = field(default_factory=list)
    added: list[lance.FragmentMetadata] = field(default_factory=list)
    metadata: dict[str, str] = field(default_factory=dict)

    @property
    def is_empty(self) -> bool:
        """True where the version equals its base."""
        return not (self.removed or self.updated or self.added)


def write_files(
    uri: str, schema: pa.Schema, batches: Iterable[pa.RecordBatch]
) -> list[lance.FragmentMetadata]:
    """Write the fragments of new rows, which no reader sees before the update; none for no rows."""
    stream = (batch for batch in batches if batch.num_rows)
    first = next(stream, None)
    if first is None:
        return []
    return lance_datasets.write_fragments(uri, schema, _chain(first, stream))


def _chain(first: pa.RecordBatch, others: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    yield first
    yield from others


def moved_rows(base: lance.LanceDataset, tail: list[int], gone: Addresses) -> Iterator[pa.RecordBatch]:
    """Yield the rows of fragments that are joined, without those that go."""
    if not tail:
        return
    fragments = [each for each in base.get_fragments() if each.fragment_id in set(tail)]
    names = base.schema.names
    scan = base.scanner(
        fragments=fragments,
        with_row_address=True,
        scan_in_order=True,
        batch_size=lance_datasets.READ_ROWS,
    )
    for batch in scan.to_reader():
        stays = ~np.isin(batch["_rowaddr"].to_numpy(), gone)
        yield batch.filter(pa.array(stays)).select(names)


def mark_deleted(
    base: lance.LanceDataset, gone: Addresses, tail: Iterable[int] = ()
) -> tuple[list[int], list[lance.FragmentMetadata]]:
    """Write deletion files; return the ids of removed fragments, and the fragments that lose rows.

    Args:
        gone: addresses of the rows that go, sorted.
        tail: fragments whose rows move, and which therefore go as a whole.
    """
    removed, updated = list(tail), []
    owners = gone >> np.uint64(_OFFSET_BITS)
    for fragment in base.get_fragments():
        own = gone[owners == fragment.fragment_id]
        if fragment.fragment_id in removed or not len(own):
            continue
        left: Any = fragment.delete(f"_rowaddr IN ({','.join(map(str, own.tolist()))})")
        if left is None:
            removed.append(int(fragment.fragment_id))
        else:
            updated.append(getattr(left, "metadata", left))
    return removed, updated


def commit_whole(uri: str, schema: pa.Schema, fragments: list[lance.FragmentMetadata], message: str) -> int:
    """Commit all rows of a version, whatever the head holds; return the version.

    Raises:
        Fenced: when other writers came between each time.
    """
    for attempt in range(_TRIES):
        dataset = lance_datasets.open_dataset(uri)
        head = 0 if dataset is None else int(dataset.version)
        try:
            return lance_datasets.commit(uri, schema, fragments, head, message)
        except Fenced:
            pass
        except OSError:
            # Where there was no table, another writer may have created it.
            if head or lance_datasets.open_dataset(uri) is None:
                raise
        time.sleep(random.uniform(0, _PAUSE_SECONDS * (1 + attempt)))
    raise _fence_error(uri)


def commit_change(uri: str, base_version: int, change: Change, message: str, indexed: bool = True) -> int:
    """Commit a change of a base in one burst; return the version, indexes included.

    Args:
        indexed: whether the table may have indexes.

    Raises:
        Fenced: when other writers came between each time.
    """
    for attempt in range(_TRIES):
        try:
            head = restore(uri, base_version, message)
            version = head if change.is_empty else update(uri, head, change, message)
            if change.metadata:
                version = describe(uri, version, change.metadata, message)
            return extend_indexes(uri, version) if indexed else version
        except Raced:
            time.sleep(random.uniform(0, _PAUSE_SECONDS * (1 + attempt)))
    raise _fence_error(uri)


def _fence_error(uri: str) -> Fenced:
    return Fenced(
        f"{uri} was replaced by another run while this one wrote it, {_TRIES} times; nothing was published; "
        "run the same command again"
    )


def restore(uri: str, base_version: int, message: str) -> int:
    """Make the head hold what the base holds, indexes included; return its version."""
    import lance

    dataset = lance_datasets.open_dataset(uri)
    if dataset is None:
        raise FileNotFoundError(f"{uri} does not exist")
    head = int(dataset.version)
    if head == base_version:
        return head
    return _commit_next(uri, head, lance.LanceOperation.Restore(base_version), f"{message}: its base")


def update(uri: str, head: int, change: Change, message: str) -> int:
    """Commit deletions and new fragments at once, on top of the restored base."""
    import lance

    operation = lance.LanceOperation.Update(
        removed_fragment_ids=change.removed, updated_fragments=change.updated, new_fragments=change.added
    )
    return _commit_next(uri, head, operation, message)


def describe(uri: str, head: int, metadata: dict[str, str], message: str) -> int:
    """Commit metadata of the schema, beside what it has."""
    import lance

    changes = lance.LanceOperation.UpdateMap(metadata, replace=False)
    operation = lance.LanceOperation.UpdateConfig(schema_metadata_updates=changes)
    return _commit_next(uri, head, operation, f"{message}: its metadata")


def extend_indexes(uri: str, version: int) -> int:
    """Index the fragments that the indexes of a version lack; return the version that holds it all.

    The indexes themselves are left alone: each gets one more segment, or none.
    """
    dataset = lance_datasets.open_dataset(uri, version)
    if dataset is None:
        raise FileNotFoundError(f"{uri} has no version {version}")
    if not dataset.describe_indices():
        return version
    try:
        with commit_conflicts():
            dataset.optimize.optimize_indices(num_indices_to_merge=0)
    except CommitConflict as error:
        raise Raced(str(error)) from None
    if int(dataset.version) == version:
        return version
    if int(dataset.version) != version + 1:
        raise Raced(f"the indexes of version {version} were committed as {dataset.version}")
    record_written(dataset)
    return version + 1


def _commit_next(uri: str, head: int, operation: Any, message: str) -> int:
    """Commit on top of `head`; the version has to be the next one.

    Raises:
        Raced: when another writer was first, also where Lance has put this commit on top of the other's.
    """
    import lance
    from lance.dataset import LANCE_COMMIT_MESSAGE_KEY

    transaction = lance.Transaction(
        head, operation, transaction_properties={LANCE_COMMIT_MESSAGE_KEY: message}
    )
    try:
        with commit_conflicts():
            version = lance_datasets.commit_transaction(uri, transaction)
    except CommitConflict as error:
        raise Raced(str(error)) from None
    if version != head + 1:
        raise Raced(f"version {version} is not the one behind {head}")
    return version
