"""Lance datasets with fenced overwrites, atomic creation and streaming both ways."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import pyarrow as pa

from mm_resources.metering import count
from mm_resources.storage.file_hashes import record_hashes
from mm_resources.storage.filesystems import lance_options
from mm_resources.storage.lance_errors import (
    CommitConflict,
    Fenced,
    commit_conflicts,
    is_lance_error,
    is_missing,
)
from mm_resources.storage.process import READ_AHEAD_BYTES
from mm_resources.storage.table_files import damage_of, data_files, record_written, require_manifests

if TYPE_CHECKING:
    import lance

# Rows of one batch of a scan, and values of one SQL list.
READ_ROWS, _IN_LIST = 16_384, 1_000
# Rows of a data file: until a file ends, its writer holds up to 8 MiB of each column back.
_FILE_ROWS = 131_072
# A dataset that grows by small commits is compacted at this number of scraps: fragments below both limits.
SCRAPS = 128
_SCRAP_ROWS, _SCRAP_BYTES = _FILE_ROWS, 64 << 20
# Retries, and the longest pause before one: of appends that race, and of commits whose request broke off.
_RACES, _RACE_SECONDS, _FAULTS, _FAULT_SECONDS = 40, 0.2, 3, 2.0


def open_dataset(
    uri: str, version: int | str | None = None, session: lance.Session | None = None
) -> lance.LanceDataset | None:
    """Open a dataset at a version or tag, by default its latest; None without one. Sessions share caches.

    Raises:
        DamagedFiles: when it cannot be opened, since a manifest of it is damaged.
    """
    import lance

    try:
        return lance.dataset(uri, version=version, storage_options=lance_options(uri), session=session)
    except BaseException as error:
        if isinstance(error, FileNotFoundError | ValueError) and is_missing(error):
            return None
        if is_lance_error(error) and "://" not in uri:
            require_manifests(uri)
        raise


def create(
    uri: str,
    schema: pa.Schema,
    batches: Iterable[pa.RecordBatch] = (),
    metadata: Callable[[], Mapping[bytes, bytes]] = dict,
) -> bool:
    """Create a dataset atomically; return False, and write nothing, when it exists already.

    Args:
        metadata: returns further metadata of the schema, once all batches are written.
    """
    import lance

    if open_dataset(uri) is not None:
        return False
    fragments = write_fragments(uri, schema, batches)
    if added := metadata():
        schema = schema.with_metadata({**(schema.metadata or {}), **added})
    try:
        # Without retries: a commit that lost the race would be rebased onto the winner's and overwrite it.
        commit_transaction(uri, lance.Transaction(0, lance.LanceOperation.Overwrite(schema, fragments)))
    except OSError:
        if open_dataset(uri) is None:
            raise
        return False
    return True


def fence(uri: str, schema: pa.Schema) -> int:
    """Return the version that the next `overwrite` must replace; create an empty dataset if there is none."""
    return int(_open_or_create(uri, schema).version)


def _open_or_create(uri: str, schema: pa.Schema) -> lance.LanceDataset:
    dataset = open_dataset(uri)
    if dataset is None:
        create(uri, schema)
        dataset = open_dataset(uri)
        assert dataset is not None
    return dataset


def overwrite(
    uri: str, schema: pa.Schema, batches: Iterable[pa.RecordBatch], read_version: int, message: str
) -> int:
    """Replace all rows in one commit, streaming, and return the new version.

    Raises:
        Fenced: when the dataset is no longer at `read_version`.
    """
    return commit(uri, schema, write_fragments(uri, schema, batches), read_version, message)


def write_fragments(
    uri: str, schema: pa.Schema, batches: Iterable[pa.RecordBatch], mode: str = "append"
) -> list[lance.FragmentMetadata]:
    """Write data files with their hashes, which no reader sees before `commit`.

    Args:
        mode: ``overwrite`` takes any columns.
    """
    from lance.fragment import write_fragments as write

    reader = pa.RecordBatchReader.from_batches(schema, batches)
    fragments: list[lance.FragmentMetadata] = write(
        reader, uri, schema, mode=mode, max_rows_per_file=_FILE_ROWS, storage_options=lance_options(uri)
    )
    count(bytes_written=sum(file.file_size_bytes or 0 for fragment in fragments for file in fragment.files))
    record_hashes(uri, data_files(fragments))
    return fragments


def commit(
    uri: str, schema: pa.Schema, fragments: list[lance.FragmentMetadata], read_version: int, message: str
) -> int:
    """Replace the dataset's rows by `fragments` and its metadata by the schema's; return the new version.

    Raises:
        Fenced: when the dataset is no longer at `read_version`.
    """
    import lance
    from lance.commit import CommitConflictError
    from lance.dataset import LANCE_COMMIT_MESSAGE_KEY

    operation = lance.LanceOperation.Overwrite(schema, fragments)
    properties = {LANCE_COMMIT_MESSAGE_KEY: message}
    transaction = lance.Transaction(read_version, operation, transaction_properties=properties)
    try:
        return commit_transaction(uri, transaction)
    except CommitConflictError:
        # Without its cause, which adds nothing and would be displayed instead of this one.
        raise Fenced(
            f"{uri} was published by another run since this one began; nothing was overwritten; "
            "run the same command again"
        ) from None


def append(uri: str, table: pa.Table) -> None:
    """Add rows in one commit; concurrent appends lose nothing.

    Compacts the dataset where needed, since every commit writes the whole list of fragments.
    """
    import lance

    dataset = _open_or_create(uri, table.schema)
    fragments = write_fragments(uri, table.schema, table.to_batches())
    commit_transaction(
        uri, lance.Transaction(int(dataset.version), lance.LanceOperation.Append(fragments)), _RACES
    )
    if len(dataset.get_fragments()) + len(fragments) >= SCRAPS:
        compact(uri, SCRAPS)


def widen(uri: str, schema: pa.Schema) -> None:
    """Add the columns of `schema` that a dataset lacks, null in all its rows."""
    for tries_left in range(_RACES, -1, -1):
        dataset = open_dataset(uri)
        if dataset is None:
            return
        missing = [item for item in schema if item.name not in dataset.schema.names]
        if not missing:
            return
        try:
            dataset.add_columns(missing)
        except (OSError, ValueError):
            # Another process may have added them meanwhile, or appended rows.
            if not tries_left:
                raise
            time.sleep(random.uniform(0, _RACE_SECONDS))


def commit_transaction(uri: str, transaction: lance.Transaction, races: int = 0) -> int:
    """Commit and return the new version; retry up to `races` lost races on top of the winner's version.

    A store's answer may be lost after it has written the version. Lance then meets its own version, takes it
    for another writer's, and by itself commits the same rows once more; so the owner of that version is
    checked first. Lance does not repeat a request that broke off, since it cannot know whether the version
    was written.
    """
    import lance
    from lance.commit import CommitConflictError

    faults = _FAULTS if "://" in uri else 0
    while True:
        try:
            committed = lance.LanceDataset.commit(
                uri, transaction, storage_options=lance_options(uri), max_retries=0
            )
            record_written(committed)
            return int(committed.version)
        except OSError as error:
            lost_race = isinstance(error, CommitConflictError)
            time.sleep(random.uniform(0, _RACE_SECONDS if lost_race else faults and _FAULT_SECONDS))
            version = _committed_version(uri, transaction)
            if version is not None:
                return version
            if not (races if lost_race else faults):
                raise
            races, faults = (races - 1, faults) if lost_race else (races, faults - 1)


def _committed_version(uri: str, transaction: lance.Transaction) -> int | None:
    """Return the version that a transaction has made; None when it has made none."""
    dataset = open_dataset(uri)
    if dataset is None:
        return None
    for version in range(int(dataset.version), transaction.read_version, -1):
        committed = dataset.read_transaction(version)
        if committed is not None and committed.uuid == transaction.uuid:
            return version
    return None


def compact(uri: str, scraps: int) -> int:
    """Join the small fragments of a dataset if it has at least `scraps` of them; return how many were joined.

    Rows and their order stay, and no concurrent commit is lost. A growing dataset is rewritten a few times at
    most, since fragments that are large enough stay as they are.
    """
    dataset = open_dataset(uri)
    fragments = [] if dataset is None else dataset.get_fragments()
    small = {fragment.fragment_id for fragment in fragments if _is_scrap(fragment)}
    if dataset is None or len(small) < max(2, scraps):
        return 0
    # A damaged fragment would come out with a hash that says it is sound.
    small -= {damage.fragment for damage in damage_of(dataset, small)[0] if damage.fragment is not None}
    large = [fragment.fragment_id for fragment in fragments if fragment.fragment_id not in small]
    try:
        with commit_conflicts():
            dataset.optimize.compact_files(
                target_rows_per_fragment=_SCRAP_ROWS,
                excluded_fragment_ids=large,
                num_threads=1,
                batch_size=READ_ROWS,
            )
    except OSError as error:
        if not isinstance(error, CommitConflict) and "://" not in uri:
            raise
        # Another process rewrites the same rows, or a remote store does not answer: the next commit tries
        # again.
        return 0
    before = {fragment.fragment_id for fragment in fragments}
    joined = [each.metadata for each in dataset.get_fragments() if each.fragment_id not in before]
    record_written(dataset, data_files(joined))
    return len(small)


def _is_scrap(fragment: lance.LanceFragment) -> bool:
    size = sum(file.file_size_bytes or 0 for file in fragment.data_files())
    return bool(fragment.physical_rows < _SCRAP_ROWS and size < _SCRAP_BYTES)


def delete_rows(dataset: lance.LanceDataset, row_ids: Sequence[int]) -> int:
    """Delete rows by their row ids in this version of the dataset; return how many were deleted.

    Stops where another process has moved rows meanwhile: the ids may be other rows' by now.
    """
    deleted = 0
    for start in range(0, len(row_ids), _IN_LIST):
        some = ", ".join(str(row) for row in row_ids[start : start + _IN_LIST])
        try:
            with commit_conflicts():
                outcome = dataset.delete(f"_rowid IN ({some})", conflict_retries=0)
        except CommitConflict:
            return deleted
        deleted += int(outcome["num_deleted_rows"])
    if row_ids:
        record_written(dataset)
    return deleted


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
        schema: of an absent dataset.
        row_ids: whether to add each row's id in this version of the dataset, as ``_rowid``.
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
        io_buffer_size=READ_AHEAD_BYTES,
        batch_readahead=2,
    )
    batches: pa.RecordBatchReader = scan.to_reader()
    return batches


def delete(uri: str, column: str, values: Iterable[str], where: str = "true") -> None:
    """Delete the rows whose column holds one of `values`.

    Args:
        values: hashes, ids or names of the store's own, never a user's text.
        where: SQL that the rows must meet as well.
    """
    dataset, chosen = open_dataset(uri), list(values)
    if dataset is None:
        return
    for start in range(0, len(chosen), _IN_LIST):
        some = ", ".join(repr(value) for value in chosen[start : start + _IN_LIST])
        dataset.delete(f"{column} IN ({some}) AND {where}")
    if chosen:
        record_written(dataset)


def batches_of(tables: Iterable[pa.Table]) -> Iterator[pa.RecordBatch]:
    """Convert tables to batches, joining small ones so that data files hold no tiny batches."""
    waiting: list[pa.Table] = []
    rows = 0
    for table in tables:
        waiting.append(table)
        rows += table.num_rows
        if rows >= READ_ROWS:
            yield from pa.concat_tables(waiting).combine_chunks().to_batches()
            waiting, rows = [], 0
    if waiting:
        yield from pa.concat_tables(waiting).combine_chunks().to_batches()
