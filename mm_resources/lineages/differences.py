"""The difference between a base and the rows of another version: by key, row hash and age of the vector."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from mm_embed_kernels import sql
from mm_embed_kernels.sql import RowDigest
from mm_resources.lineages.commits import Addresses
from mm_resources.storage import lance_datasets
from mm_resources.storage.row_ids import read_rows
from mm_resources.storage.spool import TableSpool

if TYPE_CHECKING:
    import lance

Numbers = np.ndarray[Any, np.dtype[np.int64]]

# When the large part of a row (its vector) was computed, a column of the rows that are compared.
COMPUTED_AT = "computed_at"
# The number of a row, from 0.
_NUMBER = "row_number"
# Hashes of 64 bits: rows of one key are compared, so that a wrong match has a chance of 2**-64 a changed row.
_CHANGES = """
WITH old AS (
  SELECT {key} AS key, _rowid AS address, {made_at} AS at, hash({columns}) AS hash FROM base
),
fresh AS (
  SELECT {key} AS key, {number} AS number, {computed_at} AS at, hash({columns}) AS hash FROM rows
)
SELECT o.address, n.number FROM old o FULL JOIN fresh n ON o.key = n.key
WHERE o.key IS NULL OR n.key IS NULL OR o.hash <> n.hash OR coalesce(n.at > o.at, false)
"""


@dataclass(frozen=True)
class Comparison:
    """The comparison of rows.

    Attributes:
        key: column that identifies a row.
        columns: columns whose values are the row. Left out are those that name its maker, and the vector,
            which is a function of the others and the time when it was computed.
        made_at: column of the base with the time when a row was made: a vector that was computed later is
            another one, such as the repair of a damaged one. "" where the columns are all of a row.
    """

    key: str
    columns: tuple[str, ...]
    made_at: str = ""

    @property
    def column_names(self) -> list[str]:
        """The key, and the columns that are compared."""
        return list(dict.fromkeys([self.key, *self.columns]))


@dataclass(frozen=True)
class Difference:
    """The difference between a version and its base.

    Attributes:
        rows: rows of the version.
        gone: addresses of the rows of the base that go, sorted.
        new: numbers of the version's rows that come, sorted.
        is_sound: False where keys repeat so that the difference does not add up; the version is then written
            whole.
    """

    rows: int
    gone: Addresses
    new: Numbers
    is_sound: bool


def compare(
    base: lance.LanceDataset,
    tables: Iterable[pa.Table],
    schema: pa.Schema,
    how: Comparison,
    digest: RowDigest,
    measure: Callable[[pa.Table], None] = lambda _: None,
    some: Addresses | None = None,
) -> Difference:
    """Compare the rows of a version with its base's; one scan of each, without vectors.

    Args:
        tables: the rows, in a fixed order; with `COMPUTED_AT`, null where it is not known, if `how` names a
            column for it.
        schema: their columns.
        digest: takes all rows.
        measure: called with each table.
        some: addresses of the rows of the base that `tables` replace, where the others stay as they are.
    """
    count = 0

    def numbered_batches() -> Iterator[pa.RecordBatch]:
        nonlocal count
        for table in tables:
            digest.update(table)
            measure(table)
            numbers = np.arange(count, count + table.num_rows, dtype=np.int64)
            count += table.num_rows
            yield from table.select(names).append_column(_NUMBER, pa.array(numbers)).to_batches()

    timed = bool(how.made_at)
    names = [*how.column_names, *([COMPUTED_AT] if timed else [])]
    stream = pa.RecordBatchReader.from_batches(
        pa.schema([*(schema.field(name) for name in names), pa.field(_NUMBER, pa.int64())]),
        numbered_batches(),
    )
    stored = list(dict.fromkeys([*how.column_names, *([how.made_at] if timed else [])]))
    statement = _CHANGES.format(
        key=_quote(how.key),
        made_at=f"epoch_us({_quote(how.made_at)})" if timed else "NULL::BIGINT",
        number=_NUMBER,
        computed_at=f"epoch_us({COMPUTED_AT})" if timed else "NULL::BIGINT",
        columns=", ".join(map(_quote, how.columns)),
    )
    old = (
        lance_datasets.reader(base, base.schema, stored, row_ids=True)
        if some is None
        else read_rows(base, some, stored, with_ids=True)
    )
    with sql.query(statement, base=old, rows=stream) as changes:
        spool = TableSpool.of(changes)
    gone = _distinct(spool, "address", np.uint64)
    new = _distinct(spool, "number", np.int64)
    compared = int(base.count_rows()) if some is None else len(some)
    others = int(base.count_rows()) - compared
    return Difference(others + count, gone, new, compared - len(gone) + len(new) == count)


def take_numbered(tables: Iterable[pa.Table], numbers: Numbers | None) -> Iterator[pa.Table]:
    """Yield the rows with the given numbers, counted over all tables; every row for None.

    Args:
        numbers: sorted.
    """
    passed = 0
    for table in tables:
        if numbers is None:
            yield table
            continue
        own = numbers[(numbers >= passed) & (numbers < passed + table.num_rows)] - passed
        passed += table.num_rows
        if len(own):
            yield table.take(pa.array(own))


def _quote(name: str) -> str:
    return f'"{name}"'


def _distinct(spool: TableSpool, column: str, kind: Any) -> np.ndarray[Any, Any]:
    """Return the distinct values of a column, sorted, without nulls."""
    parts = [
        batch[column].drop_null().to_numpy(zero_copy_only=False).astype(kind)
        for batch in spool.reader([column])
    ]
    return np.unique(np.concatenate(parts)) if parts else np.empty(0, kind)
