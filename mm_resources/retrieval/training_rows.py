"""Rows of a training set by their numbers, and the blobs of their samples."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mm_embed_kernels.contracts.features import matrix_of
from mm_embed_kernels.errors import SampleError, UserError
from mm_embed_kernels.modalities import Media
from mm_resources.blobs.blob_index import INDEX
from mm_resources.blobs.blob_store import BlobStore
from mm_resources.catalog import Catalog
from mm_resources.features.removed_rows import removal_errors, removed_content, removed_rows
from mm_resources.features.table_paths import table_path
from mm_resources.storage import lance_datasets
from mm_resources.storage.row_ids import take_rows

if TYPE_CHECKING:
    import lance

# Rows whose media a Ray task has in memory at once.
MEDIA_ROWS = 256
_Medium = TypeVar("_Medium")


class RowReader:
    """Reads rows of a training set by their numbers. Picklable; each process opens the tables for itself.

    Attributes:
        row_ids: for each table, the Lance row id of each row, uint64 [rows].
        blob_tables: for each table, name and version of the ``content_blobs`` behind its pin; empty without
            media. With them each row has the location of its blob as ``media``.
    """

    def __init__(
        self,
        catalog: Catalog,
        tables: list[dict[str, Any]],
        columns: list[list[str]],
        row_ids: list[np.ndarray[Any, Any]],
        blob_tables: Sequence[tuple[str, int]] = (),
    ) -> None:
        self.catalog, self.tables, self.row_ids, self.blob_tables = catalog, tables, row_ids, blob_tables
        more = ["content_hash", "span"] if blob_tables else []
        self.columns = [
            list(dict.fromkeys(["feature_id", "sample_id", "vector", *own, *more])) for own in columns
        ]
        self._opened: list[lance.LanceDataset] = []
        self._process = os.getpid()

    def __len__(self) -> int:
        return len(self.row_ids[0])

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_opened": []}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _process=os.getpid())

    def select(self, columns: Sequence[str]) -> RowReader:
        """Return a reader of these columns of each table; with ``content_hash``, media come as locations."""
        chosen = copy.copy(self)
        chosen.columns, chosen._opened = [list(dict.fromkeys(columns)) for _ in self.tables], []
        return chosen

    def extend(self, columns: Sequence[str]) -> RowReader:
        """Return a reader of further columns of each table."""
        chosen = copy.copy(self)
        chosen.columns, chosen._opened = [list(dict.fromkeys([*own, *columns])) for own in self.columns], []
        return chosen

    def __call__(self, numbers: np.ndarray[Any, Any]) -> pa.Table:
        """Read rows, in the order of `numbers`.

        Raises:
            RemovedRows: when rows of the tables were forgotten since the set was made.
            UserError: in a process that was forked, where the threads of Lance are missing: it would crash or
                wait for ever.
        """
        if os.getpid() != self._process:
            raise UserError(
                "rows cannot be read in a forked process, since Lance does not survive a fork; give the "
                "DataLoader multiprocessing_context='forkserver', or 'spawn'"
            )
        versions = [*map(table_version, self.tables), *self.blob_tables]
        with removal_errors(self.catalog.receipts, versions):
            return self._read(numbers)

    def _read(self, numbers: np.ndarray[Any, Any]) -> pa.Table:
        if not self._opened:
            features = self.catalog.features
            self._opened = [features.dataset(table["table"], table["lance_version"]) for table in self.tables]
        read: dict[str, pa.ChunkedArray] = {}
        for number, (dataset, table) in enumerate(zip(self._opened, self.tables, strict=True)):
            prefix = f"{table['modality']}__" if len(self.tables) > 1 else ""
            # The tables are joined on the entity, so that it is read from the first one.
            given = [name for name in self.columns[number] if name != "entity_id"]
            own = given if number else ["entity_id", *given]
            rows = take_rows(dataset, self.row_ids[number][numbers].tolist(), own)
            read |= {
                name if name == "entity_id" else f"{prefix}{name}": rows[name]
                for name in own
                if name not in read
            }
            if self.blob_tables and "content_hash" in own:
                read[f"{prefix}media"] = blob_locations(
                    self.catalog, rows["content_hash"], *self.blob_tables[number]
                )
        return pa.table(read)


def table_version(table: dict[str, Any]) -> tuple[str, int]:
    """Return the name in the store and the version of a table of a manifest."""
    return table_path(table["table"]), int(table["lance_version"])


def blob_locations(catalog: Catalog, hashes: pa.ChunkedArray, name: str, version: int) -> pa.StructArray:
    """Return the locations of blobs, in the order of `hashes`.

    One scan of the table for all hashes, of which only the requested rows stay in memory.

    Args:
        hashes: content hashes, which may repeat.
        name, version: the table ``content_blobs`` that lists them.

    Raises:
        RemovedRows: when one of the contents, or the version of the table, was forgotten.
        UserError: when the table does not list one of them.
    """
    requested = pc.unique(hashes)
    dataset = lance_datasets.open_dataset(catalog.store.uri(name), version)
    if dataset is None and (removed := removed_rows(catalog.receipts, name, version)):
        raise removed
    stage = lance_datasets.reader(dataset, INDEX, INDEX.names)
    rows = pa.Table.from_batches(
        [batch.filter(pc.is_in(batch["content_hash"], requested)) for batch in stage], INDEX
    ).combine_chunks()
    order = pc.index_in(hashes.combine_chunks(), rows["content_hash"].combine_chunks())
    if order.null_count:
        missing = hashes.filter(order.is_null())[0].as_py()
        raise removed_content(catalog.receipts, missing) or UserError(
            f"{name} at version {version} does not list content {missing[:16]}; run `mm doctor --verify`"
        )
    return rows.to_struct_array().combine_chunks().take(order)


def read_media(blobs: BlobStore, location: dict[str, Any]) -> bytes:
    """Return the bytes of a row's sample.

    Raises:
        RemovedRows: when the content was forgotten.
        SampleError: as `BlobStore.read`.
    """
    return _require_known(blobs, blobs.read, location)


def open_medium(blobs: BlobStore, location: dict[str, Any]) -> Media:
    """Return a row's sample as `read_media` does or, where it is large, as a local file of it."""
    return _require_known(blobs, blobs.media, location)


def _require_known(blobs: BlobStore, read: Callable[..., _Medium], location: dict[str, Any]) -> _Medium:
    try:
        return read(**location)
    except SampleError as error:
        raise removed_content(blobs.receipts, location["content_hash"]) or error from None


class BlockReader:
    """Reads a block of a training set on a Ray worker."""

    def __init__(self, rows: Any, media: bool) -> None:
        self.rows, self.media = rows, media

    def __call__(self, batch: dict[str, np.ndarray[Any, Any]]) -> pa.Table:
        table, blobs = self.rows(batch["id"]), self.rows.catalog.blobs
        columns: dict[str, Any] = {}
        for name in table.column_names:
            column = table[name]
            if self.media and is_media(name):
                contents = [read_media(blobs, blob) for blob in column.to_pylist()]
                # Large: media of one task may exceed the 2 GiB of a column of `binary`.
                columns[name] = pa.array(contents, pa.large_binary())
            elif is_vector(name):
                columns[name] = pa.FixedShapeTensorArray.from_numpy_ndarray(matrix_of(column))
            else:
                columns[name] = column
        return pa.table(columns)


def is_vector(name: str) -> bool:
    """Return whether a column holds the vectors of a table."""
    return name == "vector" or name.endswith("__vector")


def is_media(name: str) -> bool:
    """Return whether a column holds locations of blobs, or their bytes."""
    return name == "media" or name.endswith("__media")
