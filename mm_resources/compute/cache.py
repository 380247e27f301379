"""The compute cache: results by content, one Lance dataset per kernel fingerprint."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from mm_embed_kernels import sql
from mm_embed_kernels.contracts.fields import TIME, current_times
from mm_embed_kernels.embedders import Embedder
from mm_embed_kernels.error_class_entries import SUSPECTED
from mm_embed_kernels.kernels.base import Kernel
from mm_resources.compute.retry_policy import RETRYABLE, RetryPolicy
from mm_resources.storage import lance_datasets
from mm_resources.storage.row_ids import find_rows, read_rows, take_rows
from mm_resources.storage.spool import TableSpool
from mm_resources.storage.store import Store

if TYPE_CHECKING:
    import lance

_TAKE_ROWS = 4_096
# Folder with a file for each time that wrong results were evicted.
_WRONG = "registry/wrong_results"
# Up to one row in so many is taken by its row id; beyond, a scan costs less.
_FEW = 10
_BOOKKEEPING = [
    pa.field("attempt", pa.int32()),
    pa.field("environment", pa.string()),
    pa.field("at", TIME),
]

# Different runs in which a failure was seen of which the machine may be the cause; null in rows of before it
# was counted, and in no reader's result.
_RUNS = pa.field("runs", pa.int32())
# So many runs make such a failure the sample's own.
BLAMED_AFTER_RUNS = 3

# A request is a miss when it was never computed, or failed in a way that is to be tried again. Failed rows
# stay, so that attempts are counted over all runs. All aggregates have a fixed size, so that DuckDB can spill
# them.
_MISSES = """
WITH wanted AS MATERIALIZED (SELECT key, min(request) AS request FROM requests GROUP BY key),
tried AS (
  SELECT key, bool_or(status = 'ok') AS done, max(attempt) AS attempt, arg_max({again}, attempt) AS again,
         max({runs}) FILTER (environment = {environment}) AS runs
  FROM cached c SEMI JOIN wanted USING (key) GROUP BY key
)
SELECT w.request, coalesce(t.attempt, 0) AS attempt, coalesce(t.runs, 0) AS runs,
       t.key IS NULL OR (NOT t.done AND coalesce(t.again, false)) AS missing
FROM wanted w LEFT JOIN tried t USING (key)
"""
# Two cells may compute one key at once, and a retry follows a failure: a success wins, then the latest
# attempt, then the earliest row.
_ORDER = (
    "(CASE status WHEN 'ok' THEN 0 ELSE 1000000 - attempt END)::HUGEINT * 1000000000000000000"
    ' + epoch_us("at")'
)
_TWICE = f"SELECT key, arg_min(_rowid, {_ORDER}) AS best FROM heads GROUP BY key HAVING count(*) > 1"
_DOUBLES = "SELECT _rowid AS row_id FROM heads JOIN twice USING (key) WHERE _rowid <> best ORDER BY 1"
# Of the rows of each key, the one that counts.
_BEST = f"""
SELECT best FROM (
  SELECT arg_min(_rowid, {_ORDER}) AS best, arg_min(status, {_ORDER}) AS status FROM heads GROUP BY key
) WHERE {{chosen}} ORDER BY best
"""
_STATUS = ["key", "status", "error_class", "retryable", "attempt", "environment"]
_HEADS = ["key", "status", "attempt", "at"]


# The key of a computation, in SQL over segments. It names all of the input: a span of a blob, or a text,
# which need not be the blob's own (a source may correct a transcript while the sound stays the same).
SPAN_KEY = "content_hash || '#' || span"
_TEXT_KEY = "sha256(text) || '#text'"


def inputs_of(embedder: Embedder) -> dict[str, str]:
    """Return the inputs of an embedder among segments, as SQL expressions for a statement over these.

    An embedder of texts reads the segments that carry a text, such as a transcript.

    Returns:
        ``key``, the cache key of a segment, and ``readable``, the condition for those that it reads.
    """
    if embedder.input_shape is None:
        return {"key": _TEXT_KEY, "readable": "text IS NOT NULL"}
    return {"key": SPAN_KEY, "readable": "true"}


@dataclass(frozen=True)
class CachedVectors:
    """The vectors of one kernel at one moment: joins carry their row ids, and the vectors are read last.

    A vector is hundreds of times as large as its key, so that no join and no sort should have to carry it.

    Attributes:
        keys: keys whose vectors are wanted; None for all.
    """

    space: CacheSpace
    dataset: lance.LanceDataset | None
    keys: pa.Array | None = None

    def row_ids(self, *columns: str) -> pa.RecordBatchReader:
        """``key`` and ``_rowid`` of every wanted vector, unique by key, and further columns."""
        names = ["key", *columns]
        return self.space.snapshot(self.dataset, names, only_ok=True, row_ids=True, keys=self.keys)

    def attach(self, tables: Iterable[pa.Table], dimension: int) -> Iterator[pa.Table]:
        """Replace the column ``row_id`` by ``vector``, float32 [dimension].

        Rows in the order of their row ids are read once from end to end.
        """
        for table in tables:
            for start in range(0, table.num_rows, _TAKE_ROWS):
                rows = table.slice(start, _TAKE_ROWS)
                assert self.dataset is not None
                found = take_rows(self.dataset, rows["row_id"].to_pylist(), ["vector"])["vector"]
                yield rows.drop(["row_id"]).append_column(
                    "vector", found.cast(pa.list_(pa.float32(), dimension))
                )


class CacheSpace:
    """The cached results of one kernel fingerprint: append-only rows, unique by key when read."""

    def __init__(self, store: Store, kernel: Kernel) -> None:
        self.uri = store.uri(f"cache/{kernel.scope}/{kernel.fingerprint[:32]}.lance")
        self.schema = pa.schema([*kernel.result, *_BOOKKEEPING])
        self._stored = self.schema.append(_RUNS)
        self.environment, self.suspected = kernel.environment, kernel.suspected
        self._known: set[int] = set()

    def reader(self, columns: list[str] | None = None, only_ok: bool = False) -> pa.RecordBatchReader:
        """The results as they are now, one for each key."""
        return self.snapshot(lance_datasets.open_dataset(self.uri), columns, only_ok)

    def results_of(
        self, keys: pa.Array, columns: list[str] | None = None, only_ok: bool = False
    ) -> pa.RecordBatchReader:
        """The results of some keys as they are now, one for each; the keys alone are read of the others."""
        return self.snapshot(lance_datasets.open_dataset(self.uri), columns, only_ok, keys=keys)

    def snapshot(
        self,
        dataset: lance.LanceDataset | None,
        columns: list[str] | None = None,
        only_ok: bool = False,
        row_ids: bool = False,
        keys: pa.Array | None = None,
    ) -> pa.RecordBatchReader:
        """The results at one moment, one for each key; with their row ids, if wanted, as ``_rowid``.

        Args:
            keys: those whose results are wanted; None for all.
        """
        names = columns or self.schema.names
        if dataset is not None and keys is not None:
            heads = read_rows(dataset, find_rows(dataset, "key", keys), _HEADS, with_ids=True)
            best = sql.fetch(_BEST.format(chosen="status = 'ok'" if only_ok else "true"), heads=heads)
            return read_rows(dataset, best["best"].to_numpy(), names, with_ids=row_ids)
        rows = lance_datasets.reader(
            dataset, self.schema, names, "status = 'ok'" if only_ok else None, row_ids=True
        )
        schema = rows.schema if row_ids else rows.schema.remove(rows.schema.get_field_index("_rowid"))
        left_out = pa.array([] if dataset is None else doubles(dataset), pa.uint64())

        def unique() -> Iterator[pa.RecordBatch]:
            for batch in rows:
                if len(left_out):
                    batch = batch.filter(pc.invert(pc.is_in(batch["_rowid"], left_out)))
                yield batch.select(schema.names)

        return pa.RecordBatchReader.from_batches(schema, unique())

    def vectors(self, keys: pa.Array | None = None) -> CachedVectors:
        """The vectors as they are now: of some keys, or all."""
        return CachedVectors(self, lance_datasets.open_dataset(self.uri), keys)

    def misses(self, requests: TableSpool, retries: RetryPolicy = RETRYABLE) -> Iterator[pa.RecordBatch]:
        """Stream the distinct keys of `requests` (columns: key, request) with what the cache lacks of them.

        Args:
            retries: which cached failures count as missing.

        Returns:
            request (number of the key's first one), attempt (earlier tries), runs (earlier ones in which the
            machine may have been the cause of the failure), missing.
        """
        dataset = lance_datasets.open_dataset(self.uri)
        self._known = _fragments(dataset)
        counted = dataset is not None and _RUNS.name in dataset.schema.names
        columns = [*_STATUS, _RUNS.name] if counted else _STATUS
        cached = self._known_tries(dataset, columns, requests)
        runs = f"c.{_RUNS.name}" if counted else "NULL::INTEGER"
        statement = _MISSES.format(
            again=_condition(retries, self.environment, runs),
            runs=runs,
            environment=sql.literal(self.environment),
        )
        with sql.query(statement, requests=requests.reader(["key", "request"]), cached=cached) as found:
            yield from found

    def _known_tries(
        self, dataset: lance.LanceDataset | None, columns: list[str], requests: TableSpool
    ) -> pa.RecordBatchReader:
        """Stream columns of the rows that may be of requested keys: where these are few, of no others."""
        if dataset is None or requests.rows * _FEW > int(dataset.count_rows()):
            return lance_datasets.reader(dataset, self._stored, columns)
        keys = requests.reader(["key"]).read_all()["key"].combine_chunks()
        return read_rows(dataset, find_rows(dataset, "key", keys), columns)

    def append(
        self, results: pa.Table, attempts: Mapping[str, int], runs: Mapping[str, int] | None = None
    ) -> None:
        """Commit one checkpoint, without the keys that other runs have computed meanwhile.

        A failure of which the machine may be the cause stays retryable until several runs have seen it.

        Args:
            attempts: earlier tries by key; an absent key has none.
            runs: earlier runs by key that have seen such a failure; an absent key has none.
        """
        before = lance_datasets.open_dataset(self.uri)
        results = self._drop_known(results, before)
        if results.num_rows == 0:
            return
        keys = results["key"].to_pylist()
        seen = self._count_runs(results, runs or {})
        blamed = pa.array([count >= BLAMED_AFTER_RUNS for count in seen])
        retryable = pc.if_else(blamed, False, results["retryable"])
        results = results.set_column(results.column_names.index("retryable"), "retryable", retryable)
        added = {
            "attempt": pa.array([attempts.get(key, 0) + 1 for key in keys], pa.int32()),
            "environment": pa.array([self.environment] * len(keys)),
            "at": current_times(len(keys)),
            _RUNS.name: pa.array(seen, _RUNS.type),
        }
        for name, column in added.items():
            results = results.append_column(name, column)
        if before is not None and _RUNS.name not in before.schema.names:
            lance_datasets.widen(self.uri, self._stored)
        lance_datasets.append(self.uri, results.select(self._stored.names).cast(self._stored))
        written = _fragments(lance_datasets.open_dataset(self.uri)) - _fragments(before)
        # A single new fragment was written here; of several, any may be another run's and is read again.
        self._known |= written if len(written) == 1 else set()

    def _count_runs(self, results: pa.Table, earlier: Mapping[str, int]) -> list[int]:
        """Return for each result the runs that have seen a failure of the machine's, this one included.

        A run computes such a failure once: its tries inside the run are those of other causes.
        """
        columns = zip(
            *(results[name].to_pylist() for name in ("key", "error_class", "retryable")), strict=True
        )
        return [earlier.get(key, 0) + bool(again and name in self.suspected) for key, name, again in columns]

    def _drop_known(self, results: pa.Table, dataset: lance.LanceDataset | None) -> pa.Table:
        """Drop results whose keys another run has computed since the misses were listed."""
        added = _fragments(dataset) - self._known
        if dataset is None or not added:
            return results
        fragments = [fragment for fragment in dataset.get_fragments() if fragment.fragment_id in added]
        for batch in dataset.scanner(
            columns=["key"], filter="status = 'ok'", fragments=fragments
        ).to_batches():
            results = results.filter(pc.invert(pc.is_in(results["key"], batch["key"])))
        return results

    def evict(self, column: str, values: Iterable[str]) -> None:
        """Delete the rows whose column (``key``, ``content_hash``, ``error_class``) holds one of `values`."""
        lance_datasets.delete(self.uri, column, values)


class ComputeCache:
    """The compute cache of a store."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def space(self, kernel: Kernel) -> CacheSpace:
        return CacheSpace(self.store, kernel)

    def note_wrong_results(self) -> None:
        """Record that results are evicted since they were wrong: rows made of them may be anywhere."""
        self.store.create(f"{_WRONG}/{uuid.uuid4().hex}.json", b"{}")

    def count_notes(self) -> int:
        """Return how often wrong results were evicted."""
        return len(self.store.names(_WRONG))


def doubles(dataset: lance.LanceDataset) -> list[int]:
    """Row ids, ascending, of the rows of a cache space that a better row of the same key replaces."""

    def heads(columns: list[str]) -> pa.RecordBatchReader:
        return lance_datasets.reader(dataset, dataset.schema, columns, row_ids=True)

    twice = sql.fetch(_TWICE, heads=heads(_HEADS))
    if twice.num_rows == 0:
        return []
    found: list[int] = sql.fetch(_DOUBLES, heads=heads(["key"]), twice=twice)["row_id"].to_pylist()
    return found


def _condition(retries: RetryPolicy, environment: str, runs: str) -> str:
    """Return a retry policy as a condition over the cached row ``c``.

    A failure of the machine's that was written before runs were counted was made permanent by one run.
    """
    if retries.permanent:
        chosen = "true"
    else:
        either = ["c.retryable"] if retries.retryable else []
        if retries.other_environment:
            suspected = sql.literals(sorted(SUSPECTED))
            either += [
                f"c.environment <> {sql.literal(environment)}",
                f"({runs} IS NULL AND c.error_class IN ({suspected}))",
            ]
        chosen = " OR ".join(either) or "false"
    if retries.classes is None:
        return chosen
    return f"({chosen}) AND c.error_class IN ({sql.literals(retries.classes)})"


def _fragments(dataset: lance.LanceDataset | None) -> set[int]:
    return set() if dataset is None else {fragment.fragment_id for fragment in dataset.get_fragments()}
