"""Damage in the compute cache: rows whose bytes differ from their hash count as never computed."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

import pyarrow as pa

from mm_embed_kernels import sql
from mm_resources.storage import lance_datasets
from mm_resources.storage.lance_errors import is_lance_error
from mm_resources.storage.table_files import damage_of, drop_fragments

if TYPE_CHECKING:
    import lance

_KEYS = pa.schema([("key", pa.string()), ("_rowid", pa.uint64())])
# A row id is the number of its fragment, and its place in it.
_NEEDED = """
SELECT DISTINCT (_rowid >> 32)::BIGINT AS fragment FROM cached SEMI JOIN requests USING (key)
"""


def drop_damaged_rows(uri: str, requests: pa.RecordBatchReader, log: logging.Logger | None = None) -> int:
    """Remove the damaged fragments of a cache space that hold requested keys; return their rows.

    The requests are then misses, which are computed again. Rows of older versions, which have no hash, stay.

    Args:
        requests: has a column ``key``.
    """
    dataset = lance_datasets.open_dataset(uri)
    if dataset is None:
        return 0
    unreadable: set[int] = set()
    found = sql.fetch(_NEEDED, cached=_keys(dataset, unreadable), requests=requests)
    needed = unreadable | set(found["fragment"].to_pylist())
    damaged, _ = damage_of(dataset, needed)
    rows = drop_fragments(uri, {each.fragment for each in damaged if each.fragment is not None})
    if rows:
        name = "/".join(PurePosixPath(uri).parts[-2:])
        files = ", ".join(each.file for each in damaged)
        (log or logging.getLogger(__name__)).warning(
            f"cache/{name}: {rows:,} rows are damaged ({files}) and are computed again where they are needed"
        )
    return rows


def _keys(dataset: lance.LanceDataset, unreadable: set[int]) -> pa.RecordBatchReader:
    """Stream keys and row ids; fragments that cannot be read are added to `unreadable`."""

    def batches() -> Iterator[pa.RecordBatch]:
        for fragment in dataset.get_fragments():
            try:
                for batch in fragment.scanner(columns=["key"], with_row_id=True).to_batches():
                    yield batch.select(_KEYS.names).cast(_KEYS)
            except BaseException as error:
                if not is_lance_error(error):
                    raise
                unreadable.add(fragment.fragment_id)

    return pa.RecordBatchReader.from_batches(_KEYS, batches())
