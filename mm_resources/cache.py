"""The compute cache: results by content, one Lance dataset per kernel fingerprint."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pyarrow as pa

from mm_embed_kernels.kernel import Kernel
from mm_resources import lance_io
from mm_resources.store import Store

if TYPE_CHECKING:
    import lance

_TAKE_ROWS = 4_096
_BOOKKEEPING = [
    pa.field("attempt", pa.int32()),
    pa.field("environment", pa.string()),
    pa.field("at", pa.timestamp("us", tz="UTC")),
]

# In the order of keys, which begin with the content hash: a blob's segments come together and it is read once.
# A request is a miss when it was never computed, or failed in a way that may pass now: a transient cause, or a
# permanent one that was seen by another environment.
MISSES = """
SELECT r.*, coalesce(c.attempt, 0) AS attempt
FROM (SELECT DISTINCT ON (key) * FROM requests) r LEFT JOIN ({latest}) c USING (key)
WHERE c.key IS NULL OR (c.status = 'failed' AND (c.retryable OR c.environment <> '{environment}'))
ORDER BY key
"""
# The key of a computation, in SQL. It names all of the input: a place in a blob, or a text, which need not be the blob's
# own (a source may correct a transcript while the sound stays the same).
KEY = "content_hash || '#' || span"
TEXT_KEY = "sha256(text) || '#text'"
# Two cells may compute one key at once, and a retry follows a failure: a success wins, then the latest attempt.
LATEST = 'SELECT DISTINCT ON (key) * FROM cached ORDER BY key, status DESC, attempt DESC, "at"'
# Where the vector of each key lies: any good row of it will do.
PLACES = "SELECT key, min(_rowid) AS place FROM places GROUP BY key"


@dataclass(frozen=True)
class Vectors:
    """The good vectors of one kernel at one moment: joins carry their places, and the vectors are read last.

    A vector is hundreds of times as large as its key, so that no join and no sort should have to carry it.
    """

    dataset: lance.LanceDataset | None

    def places(self) -> pa.RecordBatchReader:
        """``key`` and ``_rowid`` of every good row, possibly several of one key: use with `PLACES`."""
        return lance_io.reader(self.dataset, _KEYS, ["key"], "status = 'ok'", row_ids=True)

    def attach(self, tables: Iterable[pa.Table], dimension: int) -> Iterator[pa.Table]:
        """Replace the column ``place`` by ``vector``, float32 [dimension]; in the order of places, it reads once from end to end."""
        for table in tables:
            for start in range(0, table.num_rows, _TAKE_ROWS):
                rows = table.slice(start, _TAKE_ROWS)
                assert self.dataset is not None
                found = self.dataset._take_rows(rows["place"].to_pylist(), columns=["vector"])["vector"]
                yield rows.drop(["place"]).append_column("vector", found.cast(pa.list_(pa.float32(), dimension)))


_KEYS = pa.schema([("key", pa.string())])


class CacheSpace:
    """The cached results of one kernel fingerprint: append-only rows, unique by key when read."""

    def __init__(self, store: Store, kernel: Kernel) -> None:
        self.uri = store.uri(f"cache/{kernel.scope}/{kernel.fingerprint[:32]}.lance")
        self.schema = pa.schema([*kernel.result, *_BOOKKEEPING])
        self.environment = kernel.environment

    def reader(self, columns: list[str] | None = None, where: str | None = None) -> pa.RecordBatchReader:
        """All rows, possibly several of one key: use with `LATEST`."""
        return lance_io.reader(lance_io.open_dataset(self.uri), self.schema, columns, where)

    def vectors(self) -> Vectors:
        """The vectors as they are now."""
        return Vectors(lance_io.open_dataset(self.uri))

    @property
    def misses(self) -> str:
        """SQL over ``requests`` and ``cached`` that leaves what must be computed."""
        return MISSES.format(latest=LATEST, environment=self.environment)

    def status(self) -> pa.RecordBatchReader:
        """Keys and outcomes without the payload."""
        return self.reader(["key", "status", "retryable", "attempt", "environment", "at"])

    def append(self, results: pa.Table, attempts: dict[str, int]) -> None:
        """Commit one checkpoint. `attempts` counts earlier tries by key (absent: none)."""
        keys = results["key"].to_pylist()
        added = {
            "attempt": pa.array([attempts.get(key, 0) + 1 for key in keys], pa.int32()),
            "environment": pa.array([self.environment] * len(keys)),
            "at": pa.array([datetime.now(UTC)] * len(keys), pa.timestamp("us", tz="UTC")),
        }
        for name, column in added.items():
            results = results.append_column(name, column)
        lance_io.append(self.uri, results.select(self.schema.names).cast(self.schema))

    def evict(self, column: str, values: Iterable[str]) -> None:
        """Forget the rows whose column (``key``, ``content_hash``, ``error_class``) holds one of `values`."""
        lance_io.delete(self.uri, column, values)


class ComputeCache:
    """Hands out the space of a kernel."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def space(self, kernel: Kernel) -> CacheSpace:
        return CacheSpace(self.store, kernel)
