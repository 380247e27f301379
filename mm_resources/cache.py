"""The compute cache: results by content, one Lance dataset per kernel fingerprint."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

import pyarrow as pa

from mm_embed_kernels import relational
from mm_embed_kernels.errors import TRANSIENT
from mm_embed_kernels.kernel import Kernel
from mm_resources import lance_io
from mm_resources.store import Store

_BOOKKEEPING = [
    pa.field("attempt", pa.int32()),
    pa.field("environment", pa.string()),
    pa.field("at", pa.timestamp("us", tz="UTC")),
]

# In the order of keys, which begin with the content hash: a blob's segments come together and it is read once.
# A request is a miss when it was never computed, or failed in a way that is to be tried again. Failed rows stay, so
# that attempts are counted over all runs.
MISSES = """
SELECT r.*, coalesce(c.attempt, 0) AS attempt
FROM (SELECT DISTINCT ON (key) * FROM requests) r LEFT JOIN ({latest}) c USING (key)
WHERE c.key IS NULL OR (c.status = 'failed' AND ({again}))
ORDER BY key
"""
# Which failures are tried again, as SQL over the cached row: by default what may pass later, and what only another
# environment has seen.
RETRYABLE = "c.retryable OR c.environment <> '{environment}'"
ALL, NONE = "true", "false"


def of_classes(classes: Iterable[str]) -> str:
    """The failures of these error classes are tried again, permanent ones too."""
    return f"c.error_class IN ({', '.join(map(relational.literal, classes))})"


AT_ONCE = f"c.retryable AND {of_classes(TRANSIENT)}"
# The key of a computation, in SQL. It names all of the input: a place in a blob, or a text, which need not be the blob's
# own (a source may correct a transcript while the sound stays the same).
KEY = "content_hash || '#' || span"
TEXT_KEY = "sha256(text) || '#text'"
# Two cells may compute one key at once, and a retry follows a failure: a success wins, then the latest attempt.
LATEST = 'SELECT DISTINCT ON (key) * FROM cached ORDER BY key, status DESC, attempt DESC, "at"'


class CacheSpace:
    """The cached results of one kernel fingerprint: append-only rows, unique by key when read."""

    def __init__(self, store: Store, kernel: Kernel) -> None:
        self.uri = store.uri(f"cache/{kernel.scope}/{kernel.fingerprint[:32]}.lance")
        self.schema = pa.schema([*kernel.result, *_BOOKKEEPING])
        self.environment = kernel.environment

    def reader(self, columns: list[str] | None = None, where: str | None = None) -> pa.RecordBatchReader:
        """All rows, possibly several of one key: use with `LATEST`."""
        return lance_io.reader(lance_io.open_dataset(self.uri), self.schema, columns, where)

    def misses(self, again: str = RETRYABLE) -> str:
        """SQL over ``requests`` and ``cached`` that leaves what must be computed.

        Args:
            again: which failures are tried again, see `RETRYABLE`.
        """
        return MISSES.format(latest=LATEST, again=again.replace("{environment}", self.environment))

    def status(self) -> pa.RecordBatchReader:
        """Keys and outcomes without the payload."""
        return self.reader(["key", "status", "error_class", "retryable", "attempt", "environment", "at"])

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
