"""Owners of the rows that differ between two versions: by their fragments, where they share a table."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from mm_embed_kernels import sql
from mm_resources.lineages.commits import Addresses
from mm_resources.storage import lance_datasets
from mm_resources.storage.lance_errors import is_lance_error
from mm_resources.storage.row_ids import read_rows
from mm_resources.storage.store import Store
from mm_resources.storage.table_files import data_files

if TYPE_CHECKING:
    import lance

# Equal rows cancel out, also where a joined fragment has moved them. Hashes have 64 bits.
_CHANGED = """
SELECT DISTINCT owner FROM (
  SELECT owner, hash, sum(n) AS n FROM (
    SELECT {owner} AS owner, hash({columns}) AS hash, 1 AS n FROM before UNION ALL
    SELECT {owner} AS owner, hash({columns}) AS hash, -1 AS n FROM after
  ) GROUP BY ALL
) WHERE n <> 0 ORDER BY owner
"""
_OFFSETS = np.uint64((1 << 32) - 1)
_FRAGMENT_BITS = np.uint64(32)


def changed_owners(
    store: Store,
    before: tuple[str, int],
    after: tuple[str, int],
    owner: str,
    columns: Sequence[str],
    stand_ins: Iterable[tuple[str, str]] = (),
) -> pa.Array | None:
    """Return the owners of the rows that only one of two versions has, sorted; null for rows without one.

    Versions of one table differ in the fragments and deleted rows that they do not share, and nothing else of
    them is read but addresses.

    Args:
        before, after: name and version of each table; None is returned where one is gone, cannot be
            read or lacks a column.
        owner: column that names the owner of a row, such as its sample; one may own several rows.
        columns: columns whose values are the row.
        stand_ins: (column, column whose value counts in its place, where it has one).
    """
    one, other = (lance_datasets.open_dataset(store.uri(name), version) for name, version in (before, after))
    names = {owner, *columns, *(stand_in for name, stand_in in stand_ins if name in columns)}
    if one is None or other is None or not names <= set(one.schema.names) & set(other.schema.names):
        return None
    try:
        return differing_owners(one, other, owner, columns, stand_ins)
    except BaseException as error:
        # A file is lost or damaged: who reads all of these rows says which.
        if not is_lance_error(error):
            raise
        return None


def differing_owners(
    one: lance.LanceDataset,
    other: lance.LanceDataset,
    owner: str,
    columns: Sequence[str],
    stand_ins: Iterable[tuple[str, str]] = (),
) -> pa.Array:
    """Return what `changed_owners` does, of two open versions that have the columns."""
    others = {name: stand_in for name, stand_in in stand_ins if name in columns}
    names = list(dict.fromkeys([owner, *columns, *others.values()]))
    values = [
        f'coalesce("{others[name]}"::VARCHAR, "{name}"::VARCHAR)' if name in others else f'"{name}"'
        for name in names
    ]
    statement = _CHANGED.format(owner=f'"{owner}"', columns=", ".join(values))
    if one.uri == other.uri:
        old, new = own_rows(one, other, names), own_rows(other, one, names)
    else:
        old, new = (lance_datasets.reader(each, each.schema, names) for each in (one, other))
    found: pa.Table = sql.fetch(statement, before=old, after=new)
    return found["owner"].combine_chunks()


def own_rows(one: lance.LanceDataset, other: lance.LanceDataset, columns: list[str]) -> pa.RecordBatchReader:
    """Stream the rows of a version that another one of its table does not have in the same place."""
    schema = pa.schema([one.schema.field(name) for name in columns])
    known = {tuple(data_files([each.metadata])): each for each in other.get_fragments()}

    def batches() -> Iterator[pa.RecordBatch]:
        for fragment in one.get_fragments():
            twin = known.get(tuple(data_files([fragment.metadata])))
            if twin is not None and twin.deletion_file() == fragment.deletion_file():
                continue
            live = _live_rows(one, fragment)
            if twin is not None:
                live = np.setdiff1d(live, _live_rows(other, twin), assume_unique=True)
            addresses = live | (np.uint64(fragment.fragment_id) << _FRAGMENT_BITS)
            yield from read_rows(one, addresses, columns)

    return pa.RecordBatchReader.from_batches(schema, batches())


def _live_rows(dataset: lance.LanceDataset, fragment: lance.LanceFragment) -> Addresses:
    """Return the offsets of a fragment's rows that are not deleted."""
    found = dataset.scanner(columns=[], fragments=[fragment], with_row_address=True).to_table()
    offsets: Addresses = found["_rowaddr"].to_numpy() & _OFFSETS
    return offsets
