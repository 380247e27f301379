"""Batches of a loader: columns as tensors and lists, media beside them, the user's transforms."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mm_embed_kernels.contracts.features import matrix_of
from mm_resources.blobs.blob_store import BlobStore
from mm_resources.retrieval.media_decoding import MediaDecoder
from mm_resources.retrieval.training_rows import is_media, read_media

Batch = dict[str, Any]
# The number of a row without a label, which torch's losses leave out (`ignore_index`).
NO_CLASS = -100
# Threads that read and decode the media of a batch.
_READERS = 8


@dataclass
class BatchMaker:
    """Completes batches of columns.

    Attributes:
        blobs: the store of the media whose locations are read; a batch's media are read at once, since those
            of a window may be gigabytes; None without media.
        lists: integer columns that are lists, since a row of the set has null there.
        classes: names of the classes of labels, by number.
        decoder: decodes media; None leaves their bytes.
        transform: called with each row as a dict; returns what takes its place.
        collate: called with a list of rows; returns the batch. By default tensors of one shape are stacked,
            numbers become tensors, and all else lists.
    """

    blobs: BlobStore | None = None
    lists: Collection[str] = ()
    classes: Sequence[str] = ()
    decoder: MediaDecoder | None = None
    transform: Callable[[dict[str, Any]], Any] | None = None
    collate: Callable[[list[Any]], Any] | None = None
    _values: pa.Array = field(init=False)

    def __post_init__(self) -> None:
        self._values = pa.array(list(self.classes), pa.string())

    def prepare(self, table: pa.Table) -> pa.Table:
        """Add the numbers of classes to rows: ``label_id`` beside ``label``, `NO_CLASS` without one."""
        for name in table.column_names if self.classes else ():
            if name == "label" or name.endswith("__label"):
                numbers = pc.index_in(table[name], self._values).cast(pa.int64())
                table = table.append_column(f"{name}_id", pc.fill_null(numbers, NO_CLASS))
        return table

    def finish(self, batch: Batch) -> Any:
        """Return a batch with its media, transformed."""
        if self.blobs is not None:
            batch = self._add_media(batch)
        if self.transform is None and self.collate is None:
            return batch
        size = len(next(iter(batch.values())))
        rows = [{name: values[i] for name, values in batch.items()} for i in range(size)]
        made = [self.transform(row) if self.transform else row for row in rows]
        return (self.collate or collate_rows)(made)

    def row_of(self, batch: Any) -> Any:
        """Return the row of a batch of one."""
        return {name: values[0] for name, values in batch.items()} if isinstance(batch, Mapping) else batch[0]

    def _add_media(self, batch: Batch) -> Batch:
        media: Batch = {}
        with ThreadPoolExecutor(_READERS) as pool:
            for name in filter(is_media, batch):
                if self.decoder is None:
                    media[name] = pool.map(self._read_blob, batch[name])
                else:
                    media[name] = self.decoder.decode(pool, self._read_blob, batch, name)
            return {**batch, **{name: list(contents) for name, contents in media.items()}}

    def _read_blob(self, location: dict[str, Any]) -> bytes:
        assert self.blobs is not None
        return read_media(self.blobs, location)


def collate_rows(rows: list[Any]) -> Any:
    """Return rows as a batch: tensors of one shape stacked, numbers as a tensor, all else as lists."""
    import torch

    if not rows:
        return []
    if isinstance(rows[0], Mapping):
        return {name: collate_rows([row[name] for row in rows]) for name in rows[0]}
    if isinstance(rows[0], torch.Tensor) and all(
        isinstance(each, torch.Tensor) and each.shape == rows[0].shape for each in rows
    ):
        return torch.stack(rows)
    if all(type(each) in (int, float, bool) for each in rows):
        return torch.tensor(rows)
    return rows


class Column:
    """A column of several batches, stored in one order and returned in another."""

    def __init__(self, column: pa.ChunkedArray, order: np.ndarray[Any, Any], as_list: bool) -> None:
        self._order = order
        # A single chunk is not copied.
        whole = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
        self._is_tensor = True
        if pa.types.is_fixed_size_list(whole.type):
            self._values = matrix_of(whole)
        elif pa.types.is_floating(whole.type) or (
            pa.types.is_integer(whole.type) and not as_list and not whole.null_count
        ):
            # Nulls of floating-point numbers become NaN.
            self._values = whole.to_numpy(zero_copy_only=False)
        else:
            self._is_tensor = False
            # Objects are created in stored order and then permuted: cheaper than moving their bytes.
            text = pa.types.is_string(whole.type)
            self._values = (
                whole.to_numpy(zero_copy_only=False)
                if text
                else np.fromiter(whole.to_pylist(), object, len(whole))
            )

    def rows(self, start: int, stop: int) -> Any:
        """Return rows in batch order: a list, or a tensor of its own memory, [rows, dimension] or [rows]."""
        import torch

        # Copied batch by batch, so that a batch is still in the processor's cache when it is used.
        chosen = self._values.take(self._order[start:stop], axis=0)
        return torch.from_numpy(chosen) if self._is_tensor else chosen.tolist()
