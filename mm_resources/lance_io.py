"""Lance datasets with fenced overwrites, atomic creation and streaming both ways."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import pyarrow as pa

if TYPE_CHECKING:
    import lance

os.environ.setdefault("LANCE_LOG", "error")  # before the first import: a new dataset is no warning
READ_ROWS = 16_384
_IN_LIST = 1_000


class Fenced(RuntimeError):
    """Another run published this table since the current one began."""


def open_dataset(uri: str, version: int | str | None = None) -> lance.LanceDataset | None:
    """The dataset, or None when there is none."""
    import lance

    try:
        return lance.dataset(uri, version=version)
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
        # Without retries: a commit that lost the race would be rebased onto the winner's and overwrite it.
        lance.LanceDataset.commit(uri, lance.LanceOperation.Overwrite(schema, fragments), read_version=0, max_retries=0)
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


def overwrite(uri: str, schema: pa.Schema, batches: Iterable[pa.RecordBatch], read_version: int, message: str) -> int:
    """Replace all rows in one commit, streaming; the new version.

    Raises:
        Fenced: when the dataset has moved on from `read_version`.
    """
    fragments = write_fragments(uri, schema, batches)
    return commit(uri, schema, fragments, read_version, message)


def write_fragments(uri: str, schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> list[lance.FragmentMetadata]:
    """Write data files that no reader sees until `commit`."""
    from lance.fragment import write_fragments as write

    found: list[lance.FragmentMetadata] = write(pa.RecordBatchReader.from_batches(schema, batches), uri, schema=schema)
    return found


def commit(uri: str, schema: pa.Schema, fragments: list[lance.FragmentMetadata], read_version: int, message: str) -> int:
    """Publish `fragments` as the whole of the dataset, with the schema's metadata."""
    import lance
    from lance.commit import CommitConflictError

    try:
        operation = lance.LanceOperation.Overwrite(schema, fragments)
        done = lance.LanceDataset.commit(uri, operation, read_version=read_version, commit_message=message)
    except CommitConflictError:
        # Without its cause, which says no more and would be told in this one's stead.
        raise Fenced(f"{uri} was published by another run since this one began; nothing was overwritten") from None
    return int(done.version)


def append(uri: str, table: pa.Table) -> None:
    """Add rows in one commit; concurrent appends both land."""
    import lance

    if open_dataset(uri) is None:
        create(uri, table.schema)
    lance.write_dataset(table, uri, mode="append")


def reader(
    dataset: lance.LanceDataset | None,
    schema: pa.Schema,
    columns: list[str] | None = None,
    where: str | None = None,
    limit: int | None = None,
) -> pa.RecordBatchReader:
    """Stream a dataset; an absent one reads as empty."""
    chosen = schema if columns is None else pa.schema([schema.field(name) for name in columns])
    if dataset is None:
        return pa.RecordBatchReader.from_batches(chosen, [])
    found: pa.RecordBatchReader = dataset.scanner(columns=columns, filter=where, limit=limit, batch_size=READ_ROWS).to_reader()
    return found


def delete(uri: str, column: str, values: Iterable[str]) -> None:
    """Delete the rows whose column holds one of `values`, which are hashes or ids, never a user's words."""
    dataset, chosen = open_dataset(uri), list(values)
    for start in range(0, len(chosen) if dataset is not None else 0, _IN_LIST):
        some = ", ".join(repr(value) for value in chosen[start : start + _IN_LIST])
        dataset.delete(f"{column} IN ({some})")  # type: ignore[union-attr]


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
