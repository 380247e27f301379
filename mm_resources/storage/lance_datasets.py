"""Lance datasets with fenced overwrites, atomic creation and streaming both ways."""

from __future__ import annotations

import contextlib
import ctypes
import os
import random
import time
from collections.abc import Iterable, Iterator, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING

import pyarrow as pa

from mm_resources.metering import count
from mm_resources.storage.filesystems import lance_options

if TYPE_CHECKING:
    import lance

os.environ.setdefault("LANCE_LOG", "error")  # before the first import: a new dataset is no warning
os.environ.setdefault(
    "LANCE_DEFAULT_IO_BUFFER_SIZE", str(64 << 20)
)  # what any of its scans reads ahead; 2 GiB by default
# Lance reads with dozens of threads, and glibc keeps what each has freed in an arena of its own: a third of a run's memory.
_M_ARENA_MAX, _ARENAS = -8, 2
with contextlib.suppress(AttributeError, OSError):  # another C library
    ctypes.CDLL(None).mallopt(_M_ARENA_MAX, _ARENAS)
# Arrow's own pool keeps what it has freed to itself: a hundred MiB beside the few that are in use at a time.
pa.set_memory_pool(pa.system_memory_pool())
READ_ROWS = 16_384
_IN_LIST = 1_000
# What a scan may hold read ahead of its consumer; Lance's own default is 2 GiB.
_READ_BYTES = 64 << 20
# A dataset that grows by small commits is compacted when so many of its fragments are scraps, each smaller than this.
SCRAPS = 128
# Rows of a data file: until a file ends, its writer holds up to 8 MiB of each column back.
_FILE_ROWS = 131_072
# How often, and how far apart at most, appends that race each other are tried.
_RACES, _RACE_SECONDS = 40, 0.2
# The same for commits whose request to a remote store broke off.
_FAULTS, _FAULT_SECONDS = 3, 2.0
_SCRAP_ROWS = _FILE_ROWS
_SCRAP_BYTES = 64 << 20


class Fenced(RuntimeError):
    """Another run published this table since the current one began."""


def open_dataset(uri: str, version: int | str | None = None) -> lance.LanceDataset | None:
    """The dataset, or None when there is none."""
    import lance

    try:
        return lance.dataset(uri, version=version, storage_options=lance_options(uri))
    except (FileNotFoundError, ValueError) as error:
        if "not found" in str(error).lower() or isinstance(error, FileNotFoundError):
            return None
        raise


def create(uri: str, schema: pa.Schema, batches: Iterable[pa.RecordBatch] = ()) -> bool:
    """Create a dataset atomically; False when it exists already (then nothing is written)."""
    import lance

    if open_dataset(uri) is not None:
        return False
    fragments = write_fragments(uri, schema, batches)
    try:
        # Once: a commit that lost the race would be rebased onto the winner's and overwrite it.
        _commit(uri, lance.Transaction(0, lance.LanceOperation.Overwrite(schema, fragments)))
    except OSError:
        if open_dataset(uri) is None:
            raise
        return False
    return True


def fence(uri: str, schema: pa.Schema) -> int:
    """The version that the next `overwrite` must replace; creates an empty dataset first if there is none."""
    found = open_dataset(uri)
    if found is None:
        create(uri, schema)
        found = open_dataset(uri)
        assert found is not None
    return int(found.version)


def overwrite(
    uri: str, schema: pa.Schema, batches: Iterable[pa.RecordBatch], read_version: int, message: str
) -> int:
    """Replace all rows in one commit, streaming; the new version.

    Raises:
        Fenced: when the dataset has moved on from `read_version`.
    """
    fragments = write_fragments(uri, schema, batches)
    return commit(uri, schema, fragments, read_version, message)


def write_fragments(
    uri: str, schema: pa.Schema, batches: Iterable[pa.RecordBatch]
) -> list[lance.FragmentMetadata]:
    """Write data files that no reader sees until `commit`."""
    from lance.fragment import write_fragments as write

    reader = pa.RecordBatchReader.from_batches(schema, batches)
    found: list[lance.FragmentMetadata] = write(
        reader, uri, schema=schema, max_rows_per_file=_FILE_ROWS, storage_options=lance_options(uri)
    )
    count(bytes_written=sum(file.file_size_bytes or 0 for fragment in found for file in fragment.files))
    return found


def commit(
    uri: str, schema: pa.Schema, fragments: list[lance.FragmentMetadata], read_version: int, message: str
) -> int:
    """Publish `fragments` as the whole of the dataset, with the schema's metadata."""
    import lance
    from lance.commit import CommitConflictError
    from lance.dataset import LANCE_COMMIT_MESSAGE_KEY

    operation = lance.LanceOperation.Overwrite(schema, fragments)
    transaction = lance.Transaction(
        read_version, operation, transaction_properties={LANCE_COMMIT_MESSAGE_KEY: message}
    )
    try:
        return _commit(uri, transaction)
    except CommitConflictError:
        # Without its cause, which says no more and would be told in this one's stead.
        raise Fenced(
            f"{uri} was published by another run since this one began; nothing was overwritten"
        ) from None


def append(uri: str, table: pa.Table) -> None:
    """Add rows in one commit; concurrent appends both land.

    The list of fragments that every commit writes anew stays short: see `compact`.
    """
    import lance

    found = open_dataset(uri)
    if found is None:
        create(uri, table.schema)
        found = open_dataset(uri)
        assert found is not None
    fragments = write_fragments(uri, table.schema, table.to_batches())
    _commit(uri, lance.Transaction(int(found.version), lance.LanceOperation.Append(fragments)), _RACES)
    if len(found.get_fragments()) + len(fragments) >= SCRAPS:
        compact(uri, SCRAPS)


def widen(uri: str, schema: pa.Schema) -> None:
    """Give a dataset the columns of `schema` that it lacks, null in all its rows."""
    for left in range(_RACES, -1, -1):
        found = open_dataset(uri)
        missing = [] if found is None else [item for item in schema if item.name not in found.schema.names]
        if found is None or not missing:
            return
        try:
            found.add_columns(missing)
        except (OSError, ValueError):
            # Another process may have added them meanwhile, or appended rows.
            if not left:
                raise
            time.sleep(random.uniform(0, _RACE_SECONDS))


def _commit(uri: str, transaction: lance.Transaction, races: int = 0) -> int:
    """Commit; the new version. So many lost `races` are run again on top of the winner's version.

    A store's answer may be lost after it has written the version. Lance finds its own version in its way then, takes it
    for another writer's, and left to itself commits the same rows once more; so whose it is is looked up here first.
    A request that broke off is not repeated by Lance, since it cannot know this.
    """
    import lance
    from lance.commit import CommitConflictError

    faults = _FAULTS if "://" in uri else 0
    while True:
        try:
            done = lance.LanceDataset.commit(
                uri, transaction, storage_options=lance_options(uri), max_retries=0
            )
            return int(done.version)
        except OSError as error:
            lost_race = isinstance(error, CommitConflictError)
            time.sleep(random.uniform(0, _RACE_SECONDS if lost_race else faults and _FAULT_SECONDS))
            version = _landed(uri, transaction)
            if version is not None:
                return version
            if not (races if lost_race else faults):
                raise
            races, faults = (races - 1, faults) if lost_race else (races, faults - 1)


def _landed(uri: str, transaction: lance.Transaction) -> int | None:
    """The version that a transaction made, if it did."""
    found = open_dataset(uri)
    for version in range(0 if found is None else int(found.version), transaction.read_version, -1):
        made = found.read_transaction(version)  # type: ignore[union-attr]
        if made is not None and made.uuid == transaction.uuid:
            return version
    return None


def compact(uri: str, scraps: int) -> int:
    """Join the small fragments of a dataset if it has at least `scraps` of them; how many were joined.

    Rows and their order stay; commits of others land beside it or win. What grows is rewritten a few times at most, since
    a fragment that is large enough is left alone.
    """
    dataset = open_dataset(uri)
    fragments = [] if dataset is None else dataset.get_fragments()
    small = {fragment.fragment_id for fragment in fragments if _is_scrap(fragment)}
    if dataset is None or len(small) < max(2, scraps):
        return 0
    large = [fragment.fragment_id for fragment in fragments if fragment.fragment_id not in small]
    try:
        dataset.optimize.compact_files(
            target_rows_per_fragment=_SCRAP_ROWS,
            excluded_fragment_ids=large,
            num_threads=1,
            batch_size=READ_ROWS,
        )
    except OSError as error:
        if "conflict" not in str(error).lower() and "://" not in uri:
            raise
        return 0  # another process rewrites the same rows just now, or a store does not answer; the next commit looks again
    return len(small)


def _is_scrap(fragment: lance.LanceFragment) -> bool:
    size = sum(file.file_size_bytes or 0 for file in fragment.data_files())
    return bool(fragment.physical_rows < _SCRAP_ROWS and size < _SCRAP_BYTES)


def delete_rows(dataset: lance.LanceDataset, row_ids: Sequence[int]) -> int:
    """Delete rows by their places in this version of the dataset; how many went.

    Nothing goes where another process has moved the rows meanwhile: their places would be others' by now.
    """
    gone = 0
    for start in range(0, len(row_ids), _IN_LIST):
        some = ", ".join(str(row) for row in row_ids[start : start + _IN_LIST])
        try:
            gone += int(dataset.delete(f"_rowid IN ({some})", conflict_retries=0)["num_deleted_rows"])
        except OSError as error:
            if "conflict" not in str(error).lower():
                raise
            return gone
    return gone


def data_bytes(uri: str, version: int | None = None) -> int:
    """Bytes of the data files of a dataset's present version, or of another; 0 where there is none."""
    dataset = open_dataset(uri, version)
    fragments = [] if dataset is None else dataset.get_fragments()
    return sum(file.file_size_bytes or 0 for fragment in fragments for file in fragment.data_files())


def tag(uri: str, version: int, name: str) -> None:
    """Keep a version for as long as the tag names it; moves the tag if it named another one."""
    dataset = open_dataset(uri)
    if dataset is None:
        raise LookupError(f"{uri} does not exist")
    known = dataset.tags.list()
    if name not in known:
        dataset.tags.create(name, version)
    elif known[name]["version"] != version:
        dataset.tags.update(name, version)


def clean(uri: str, older_than: timedelta) -> tuple[int, int]:
    """Remove versions that are older and bear no tag, with what only they reference; (versions, bytes) removed.

    Files of a commit that is under way are left alone for seven days, whatever `older_than` says.
    """
    dataset = open_dataset(uri)
    if dataset is None:
        return 0, 0
    removed = dataset.cleanup_old_versions(older_than=older_than, error_if_tagged_old_versions=False)
    return int(removed.old_versions), int(removed.bytes_removed)


def reader(
    dataset: lance.LanceDataset | None,
    schema: pa.Schema,
    columns: list[str] | None = None,
    where: str | None = None,
    limit: int | None = None,
    row_ids: bool = False,
) -> pa.RecordBatchReader:
    """Stream a dataset; an absent one reads as empty.

    Args:
        row_ids: whether each row brings its place in this version of the dataset, as ``_rowid``.
    """
    chosen = schema if columns is None else pa.schema([schema.field(name) for name in columns])
    if row_ids:
        chosen = chosen.append(pa.field("_rowid", pa.uint64()))
    if dataset is None:
        return pa.RecordBatchReader.from_batches(chosen, [])
    scan = dataset.scanner(
        columns=columns,
        filter=where,
        limit=limit,
        with_row_id=row_ids,
        batch_size=READ_ROWS,
        io_buffer_size=_READ_BYTES,
        batch_readahead=2,
    )
    found: pa.RecordBatchReader = scan.to_reader()
    return found


def delete(uri: str, column: str, values: Iterable[str], where: str = "true") -> None:
    """Delete the rows whose column holds one of `values`, which are hashes or ids, never a user's words.

    Args:
        where: SQL that the rows must meet as well.
    """
    dataset, chosen = open_dataset(uri), list(values)
    for start in range(0, len(chosen) if dataset is not None else 0, _IN_LIST):
        some = ", ".join(repr(value) for value in chosen[start : start + _IN_LIST])
        dataset.delete(f"{column} IN ({some}) AND {where}")  # type: ignore[union-attr]


def rows_of(batches: Iterable[pa.Table]) -> Iterator[pa.RecordBatch]:
    """Tables to batches, small ones joined so that no data file holds scraps."""
    held: list[pa.Table] = []
    count = 0
    for table in batches:
        held.append(table)
        count += table.num_rows
        if count >= READ_ROWS:
            yield from pa.concat_tables(held).combine_chunks().to_batches()
            held, count = [], 0
    if held:
        yield from pa.concat_tables(held).combine_chunks().to_batches()
