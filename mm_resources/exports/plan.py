"""The shards of an export: neighbouring rows, cut by their bytes; the same for the same rows and request."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mm_embed_kernels.errors import SampleError
from mm_embed_kernels.media.spans import seconds_of
from mm_resources.exports.base import Request
from mm_resources.exports.media import WHOLE_SPANS
from mm_resources.retrieval.mixture_rows import DrawnReader
from mm_resources.retrieval.training_rows import RowReader, is_vector

# Rows whose sizes are read at once.
_ROWS = 65_536
# Bytes of a row beside vectors and media: ids and short texts.
_ROW_BYTES = 1_000


@dataclass(frozen=True)
class PlannedShard:
    """Rows of one shard.

    Attributes:
        name: of its file, without a suffix.
        split: "" where splits are not separated.
        numbers: of its rows in the set, ascending, int64.
    """

    name: str
    split: str
    numbers: np.ndarray[Any, Any]


def plan_shards(
    reader: RowReader | DrawnReader, request: Request, by_split: bool, shard_bytes: int
) -> list[PlannedShard]:
    """Return the shards of an export.

    Args:
        reader: of the set's rows, with their media.
        by_split: whether a shard has rows of one split.
        shard_bytes: bytes from which on a shard is full; a span that is cut anew counts its share of the
            whole.
    """
    columns = ["split", "span", "duration", "text", "content_hash"]
    sizes: list[np.ndarray[Any, Any]] = []
    splits: list[str] = []
    fixed = _ROW_BYTES + sum(
        4 * item.type.list_size
        for item in request.schema
        if is_vector(item.name) and pa.types.is_fixed_size_list(item.type)
    )
    narrow = reader.select(columns if request.media else ["split"])
    for start in range(0, len(reader), _ROWS):
        table = narrow(np.arange(start, min(start + _ROWS, len(reader))))
        total = np.full(table.num_rows, fixed, np.int64)
        for name in request.media:
            total += _media_sizes(table, name.removesuffix("media"), request.whole)
        sizes.append(total)
        column = next(name for name in table.column_names if name == "split" or name.endswith("__split"))
        splits += table[column].to_pylist() if by_split else [""] * table.num_rows
    if not sizes:
        return []
    return list(_cut(np.concatenate(sizes), np.asarray(splits, object), shard_bytes))


def _cut(
    sizes: np.ndarray[Any, Any], splits: np.ndarray[Any, Any], shard_bytes: int
) -> Iterator[PlannedShard]:
    for split in sorted(set(splits.tolist())):
        rows = np.flatnonzero(splits == split)
        ends = np.cumsum(sizes[rows])
        # A row belongs to the shard in which it begins.
        shards = (ends - sizes[rows]) // shard_bytes
        for number, shard in enumerate(np.unique(shards)):
            yield PlannedShard(f"{split or 'part'}-{number:06d}", split, rows[shards == shard])


def _media_sizes(table: pa.Table, prefix: str, whole: bool) -> np.ndarray[Any, Any]:
    media = table[f"{prefix}media"].combine_chunks()
    sizes: np.ndarray[Any, Any] = media.field("size").to_numpy(zero_copy_only=False).astype(np.int64)
    if whole:
        return sizes
    durations = pc.fill_null(table[f"{prefix}duration"], 0.0).to_pylist()
    for i, span in enumerate(table[f"{prefix}span"].to_pylist()):
        if span in WHOLE_SPANS:
            continue
        try:
            begin, end = seconds_of(span)
        except SampleError:
            sizes[i] = len(table[f"{prefix}text"][i].as_py() or "")
            continue
        if durations[i] > 0:
            sizes[i] = int(sizes[i] * min(1.0, (end - begin) / durations[i]))
    return sizes
