from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from mm_embed_kernels.errors import SampleError
from mm_embed_kernels.kernels import base as kernel_module
from mm_embed_kernels.kernels.base import Kernel, Resources, Stage, results
from mm_embed_kernels.sandbox.sandbox import Limits, call_guarded
from mm_resources.compute import runner as compute_module
from mm_resources.compute.cache import CacheSpace, ComputeCache, doubles
from mm_resources.compute.progress import listen
from mm_resources.compute.retry_policy import ALL, NONE, Backoff, RetryPolicy
from mm_resources.compute.runner import ComputeReport, KernelRunner, spool_misses
from mm_resources.storage import lance_datasets
from mm_resources.storage.store import Store


class Killed(BaseException):
    """Stands for a kill signal: nothing catches it."""


@dataclass
class Behaviour:
    """How the kernel behaves today, and what it was asked."""

    transient: set[str] = field(default_factory=set)
    recovers: dict[str, int] = field(default_factory=dict)  # key -> tries that fail before one passes
    late: set[str] = field(default_factory=set)
    permanent: set[str] = field(default_factory=set)
    killer: str = ""
    asked: list[str] = field(default_factory=list)
    loads: int = 0


class Lengths(Kernel):
    """The length of a key."""

    name = "lengths"
    scope = "lengths"
    seconds_per_row = 0.001

    def __init__(
        self,
        behaviour: Behaviour | None = None,
        fingerprint: str = "f" * 64,
        checkpoint_rows: int = 10,
        batch_rows: int = 4,
    ) -> None:
        self.behaviour = behaviour or Behaviour()
        self.fingerprint, self.checkpoint_rows, self.batch_rows = fingerprint, checkpoint_rows, batch_rows
        self.payload = [pa.field("length", pa.int64())]

    def stages(self) -> list[Stage]:
        return [Measure(self.behaviour, self.result, self.batch_rows)]


class Measure(Stage):
    def __init__(self, behaviour: Behaviour, schema: pa.Schema, batch_rows: int) -> None:
        self.behaviour, self.schema, self.resources = behaviour, schema, Resources(batch_rows=batch_rows)

    def setup(self) -> None:
        self.behaviour.loads += 1

    def run(self, batch: pa.Table) -> pa.Table:
        assert batch.num_rows <= self.resources.batch_rows
        keys = batch["key"].to_pylist()
        return results(keys, [call_guarded(self.measure, (key,)) for key in keys], 0.1, self.schema)

    def measure(self, key: str) -> dict[str, Any]:
        if key == self.behaviour.killer:
            raise Killed
        self.behaviour.asked.append(key)
        if key in self.behaviour.transient:
            raise SampleError("fetch_error", "the network is down", retryable=True)
        if self.behaviour.asked.count(key) <= self.behaviour.recovers.get(key, 0):
            raise SampleError("store_error", "the store does not answer", retryable=True)
        if key in self.behaviour.late:
            raise SampleError("not_found", "it was listed but is gone", retryable=True)
        if key in self.behaviour.permanent:
            raise SampleError("truncated", "ends too early")
        return {"length": len(key)}


@pytest.fixture
def compute(tmp_path: Path) -> KernelRunner:
    """One try a run."""
    return KernelRunner(ComputeCache(Store(str(tmp_path))), backoff=Backoff(attempts=1))


@pytest.fixture
def patient(tmp_path: Path) -> KernelRunner:
    return KernelRunner(ComputeCache(Store(str(tmp_path))), backoff=Backoff(attempts=4, seconds=0.001))


KEYS = [f"key-{i:04d}" for i in range(100)]


def requests(keys: list[str]) -> pa.Table:
    return pa.table({"key": pa.array(keys, pa.string())})


def counts(report: ComputeReport) -> tuple[int, int, int]:
    return report.computed, report.reused, report.failed


def latest(compute: KernelRunner, kernel: Kernel) -> dict[str, dict[str, Any]]:
    """The cache as its readers see it, by key; fails when a key stands twice."""
    rows = compute.cache.space(kernel).reader().read_all().to_pylist()
    found = {row["key"]: row for row in rows}
    assert len(found) == len(rows)
    return found


def test_the_second_run_computes_nothing(compute: KernelRunner) -> None:
    first, again = Behaviour(), Behaviour()
    report = compute.run(Lengths(first), requests(KEYS))
    assert counts(report) == (100, 0, 0)
    assert (report.mode, report.kernel, report.fingerprint) == ("inline", "lengths", "f" * 64)
    assert report.checkpoints >= 9
    assert sorted(first.asked) == KEYS
    assert counts(compute.run(Lengths(again), requests(KEYS))) == (0, 100, 0)
    assert (again.asked, again.loads) == ([], 0)  # no model is loaded for nothing
    assert {key: row["length"] for key, row in latest(compute, Lengths()).items()} == dict.fromkeys(KEYS, 8)


def test_only_what_is_new_is_computed(compute: KernelRunner) -> None:
    compute.run(Lengths(), requests(KEYS[:60]))
    behaviour = Behaviour()
    assert compute.count_missing(Lengths(), requests(KEYS)) == (100, 40)
    assert counts(compute.run(Lengths(behaviour), requests(KEYS))) == (40, 60, 0)
    assert sorted(behaviour.asked) == KEYS[60:]
    assert compute.count_missing(Lengths(), requests(KEYS)) == (100, 0)


def test_another_process_finds_the_results(compute: KernelRunner, tmp_path: Path) -> None:
    compute.run(Lengths(), requests(KEYS))
    assert counts(KernelRunner(ComputeCache(Store(str(tmp_path)))).run(Lengths(), requests(KEYS))) == (
        0,
        100,
        0,
    )


def test_another_fingerprint_computes_anew(compute: KernelRunner) -> None:
    compute.run(Lengths(), requests(KEYS))
    assert counts(compute.run(Lengths(fingerprint="e" * 64), requests(KEYS))) == (100, 0, 0)


def test_requests_are_distinct_by_key(compute: KernelRunner) -> None:
    behaviour = Behaviour()
    assert counts(compute.run(Lengths(behaviour), requests(["a", "bb", "a", "a"]))) == (2, 0, 0)
    assert sorted(behaviour.asked) == ["a", "bb"]
    assert set(latest(compute, Lengths())) == {"a", "bb"}


def test_no_requests(compute: KernelRunner) -> None:
    report = compute.run(Lengths(), requests([]))
    assert (counts(report), report.checkpoints) == ((0, 0, 0), 0)
    assert compute.cache.space(Lengths()).reader().read_all().num_rows == 0


def test_requests_may_be_a_stream(compute: KernelRunner) -> None:
    stream = pa.RecordBatchReader.from_batches(
        requests([]).schema, requests(KEYS).to_batches(max_chunksize=7)
    )
    assert counts(compute.run(Lengths(), stream)) == (100, 0, 0)


def test_a_transient_failure_is_tried_again_and_a_permanent_one_is_not(compute: KernelRunner) -> None:
    bad = Behaviour(transient={"key-0001", "key-0002"}, permanent={"key-0003"})
    assert counts(compute.run(Lengths(bad), requests(KEYS))) == (100, 0, 3)
    failed = {
        key: (row["error_class"], row["retryable"], row["attempt"])
        for key, row in latest(compute, Lengths()).items()
        if row["length"] is None
    }
    assert failed == {
        "key-0001": ("fetch_error", True, 1),
        "key-0002": ("fetch_error", True, 1),
        "key-0003": ("truncated", False, 1),
    }

    better = Behaviour(transient={"key-0002"})
    assert counts(compute.run(Lengths(better), requests(KEYS))) == (2, 98, 1)
    assert sorted(better.asked) == ["key-0001", "key-0002"]
    seen = latest(compute, Lengths())
    assert [(seen[f"key-000{i}"]["status"], seen[f"key-000{i}"]["attempt"]) for i in (1, 2, 3)] == [
        ("ok", 2),
        ("failed", 2),
        ("failed", 1),
    ]

    good = Behaviour()
    assert counts(compute.run(Lengths(good), requests(KEYS))) == (1, 99, 0)
    assert latest(compute, Lengths())["key-0002"]["attempt"] == 3
    assert good.asked == ["key-0002"]


def test_transient_causes_are_tried_again_inside_the_run(patient: KernelRunner) -> None:
    """Only they are: what is permanent, or gone until a person mends it, is asked once."""
    behaviour = Behaviour(
        transient={"key-0001"}, recovers={"key-0002": 2}, late={"key-0003"}, permanent={"key-0004"}
    )
    report = patient.run(Lengths(behaviour), requests(KEYS))
    assert counts(report) == (100, 0, 3)
    assert {key: n for key in KEYS if (n := behaviour.asked.count(key)) > 1} == {"key-0001": 4, "key-0002": 3}
    seen = latest(patient, Lengths())
    assert [(seen[f"key-000{i}"]["status"], seen[f"key-000{i}"]["attempt"]) for i in range(5)] == [
        ("ok", 1), ("failed", 4), ("ok", 3), ("failed", 1), ("failed", 1),
    ]  # fmt: skip
    again = Behaviour()
    assert counts(patient.run(Lengths(again), requests(KEYS))) == (2, 98, 0)
    assert sorted(again.asked) == ["key-0001", "key-0003"]
    assert latest(patient, Lengths())["key-0001"]["attempt"] == 5


def test_pauses_grow_up_to_a_bound_and_are_not_alike() -> None:
    backoff = Backoff(attempts=9, seconds=0.5, longest=3.0)
    for tries, most in enumerate([0.5, 1.0, 2.0, 3.0, 3.0], start=1):
        pauses = [backoff.pause(tries) for _ in range(400)]
        assert all(0 <= pause <= most for pause in pauses)
        assert max(pauses) > 0.9 * most
        assert min(pauses) < 0.1 * most


@pytest.mark.parametrize(
    ("again", "asked"),
    [
        (ALL, ["key-0001", "key-0002"]),
        (NONE, []),
        (RetryPolicy(permanent=True, classes=("truncated",)), ["key-0002"]),
        (RetryPolicy(permanent=True, classes=("it's new",)), []),
    ],
)
def test_chosen_failures_are_tried_again_and_attempts_go_on(
    compute: KernelRunner, again: str, asked: list[str]
) -> None:
    bad = Behaviour(transient={"key-0001"}, permanent={"key-0002"})
    compute.run(Lengths(bad), requests(KEYS))
    still = Behaviour(transient={"key-0001"}, permanent={"key-0002"})
    assert counts(compute.run(Lengths(still), requests(KEYS), retries=again)) == (
        len(asked),
        100 - len(asked),
        len(asked),
    )
    assert sorted(still.asked) == asked
    attempts = {
        key: row["attempt"] for key, row in latest(compute, Lengths()).items() if row["status"] == "failed"
    }
    assert attempts == {key: 2 if key in asked else 1 for key in ("key-0001", "key-0002")}


def test_another_environment_tries_permanent_failures_again(
    compute: KernelRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    compute.run(Lengths(Behaviour(permanent={"key-0003"})), requests(KEYS))
    monkeypatch.setattr(kernel_module, "environment_digest", lambda: "another machine")
    behaviour = Behaviour()
    assert counts(compute.run(Lengths(behaviour), requests(KEYS))) == (1, 99, 0)
    assert behaviour.asked == ["key-0003"]
    assert latest(compute, Lengths())["key-0003"]["environment"] == "another machine"


@pytest.mark.parametrize("place", [0, 1, 37, 99])
def test_a_killed_run_goes_on_where_it_was(compute: KernelRunner, place: int) -> None:
    first = Behaviour()
    order: list[str] = []
    compute.run(Lengths(first, fingerprint="0" * 64), requests(KEYS))  # what order the misses come in
    order = first.asked
    killed = Behaviour(killer=order[place])
    with pytest.raises(Killed):
        compute.run(Lengths(killed, checkpoint_rows=10, batch_rows=4), requests(KEYS))
    kept = latest(compute, Lengths())
    # All of the blocks before, but for the open checkpoint.
    assert place - 4 - 10 < len(kept) <= place
    after = Behaviour()
    report = compute.run(Lengths(after), requests(KEYS))
    assert counts(report) == (100 - len(kept), len(kept), 0)
    assert sorted(after.asked) == sorted(set(KEYS) - set(kept))
    assert set(latest(compute, Lengths())) == set(KEYS)
    assert compute.cache.space(Lengths()).reader().read_all().num_rows == 100


def test_checkpoints_by_size(compute: KernelRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compute_module, "CHECKPOINT_BYTES", 1)
    assert compute.run(Lengths(checkpoint_rows=10_000, batch_rows=25), requests(KEYS)).checkpoints == 4


def test_a_success_wins_over_a_failure_of_another_run(compute: KernelRunner) -> None:
    """Two cells computed one key at once: whichever row came last, the result counts."""
    kernel = Lengths()
    space = compute.cache.space(kernel)
    failure = results(["k"], [SampleError("fetch_error", "late", retryable=True)], 0.1, kernel.result)
    for order in (
        [failure, results(["k"], [{"length": 1}], 0.1, kernel.result)],
        [results(["k"], [{"length": 1}], 0.1, kernel.result), failure],
    ):
        for table in order:
            space.append(table, {})
        assert latest(compute, kernel)["k"]["status"] == "ok"
    assert compute.count_missing(kernel, requests(["k"])) == (1, 0)


def test_evicted_rows_are_computed_again(compute: KernelRunner) -> None:
    compute.run(Lengths(), requests(KEYS))
    space = compute.cache.space(Lengths())
    space.evict("key", [f"key-{i:04}" for i in range(10)])
    assert compute.count_missing(Lengths(), requests(KEYS)) == (100, 10)
    assert counts(compute.run(Lengths(), requests(KEYS))) == (10, 90, 0)
    compute.cache.space(Lengths(fingerprint="a" * 64)).evict("key", ["none"])


def test_other_limits_try_permanent_failures_again(compute: KernelRunner) -> None:
    """What a child could not do with little memory, it may do with more."""
    kernel = Lengths()
    kernel.limits = Limits(memory_bytes=1 << 30)
    failure = results(["k"], [SampleError("memory_limit", "too much")], 0.1, kernel.result)
    compute.cache.space(kernel).append(failure, {})
    assert compute.count_missing(kernel, requests(["k"])) == (1, 0)
    kernel.limits = Limits(memory_bytes=2 << 30)
    assert compute.count_missing(kernel, requests(["k"])) == (1, 1)


SLOW = SampleError("timeout", "decoding took longer than 30 s", retryable=True)


def fail_once(compute: KernelRunner, kernel: Kernel, error: SampleError = SLOW) -> None:
    """Compute "k" in a run of its own, which fails."""
    _, misses = spool_misses(compute.cache.space(kernel), requests(["k"]))
    assert misses.rows == 1
    history = [{"k": misses.reader().read_all()[name][0].as_py()} for name in ("attempt", "runs")]
    compute.cache.space(kernel).append(results(["k"], [error], 0.1, kernel.result), *history)


@pytest.mark.parametrize("error_class", ["timeout", "memory_limit", "decoder_crash", "model_crash"])
def test_the_machine_is_suspected_until_three_runs_have_seen_it(
    compute: KernelRunner, error_class: str
) -> None:
    kernel, error = Lengths(), SampleError(error_class, "perhaps of the machine", retryable=True)
    for run in (1, 2, 3):
        fail_once(compute, kernel, error)
        row = latest(compute, kernel)["k"]
        assert (row["attempt"], row["retryable"]) == (run, run < 3)
        assert "runs" not in row, "no reader sees it"
    assert compute.count_missing(kernel, requests(["k"])) == (1, 0)


def test_what_another_run_fails_of_counts_separately(compute: KernelRunner) -> None:
    """A store that does not answer says nothing about a sample."""
    away = SampleError("store_error", "the store does not answer", retryable=True)
    for error in (away, away, away, SLOW, away, SLOW):
        fail_once(compute, Lengths(), error)
    assert latest(compute, Lengths())["k"]["retryable"]
    fail_once(compute, Lengths(), SLOW)
    assert not latest(compute, Lengths())["k"]["retryable"]


def test_runs_are_counted_across_upkeep(compute: KernelRunner) -> None:
    """It leaves one row for each key."""
    for _ in range(2):
        fail_once(compute, Lengths())
    dataset = lance_datasets.open_dataset(compute.cache.space(Lengths()).uri)
    assert dataset is not None
    assert lance_datasets.delete_rows(dataset, doubles(dataset)) == 1
    fail_once(compute, Lengths())
    assert not latest(compute, Lengths())["k"]["retryable"]


def test_a_run_of_another_environment_does_not_count(compute: KernelRunner) -> None:
    other = Lengths()
    other.limits = Limits(item_seconds=60.0)
    fail_once(compute, Lengths())
    fail_once(compute, Lengths())
    fail_once(compute, other)
    assert latest(compute, other)["k"]["retryable"]


def test_a_crash_of_the_content_is_its_own_at_once(compute: KernelRunner) -> None:
    fail_once(compute, Lengths(), SampleError("decoder_crash", "the decoder died with SIGSEGV"))
    assert compute.count_missing(Lengths(), requests(["k"])) == (1, 0)


@pytest.mark.parametrize("limits", [Limits(), Limits(memory_bytes=1 << 30, item_seconds=20.0)])
def test_what_an_older_version_has_frozen_is_tried_again(compute: KernelRunner, limits: Limits) -> None:
    """Written as it did, without the column that counts runs."""
    kernel = Lengths()
    kernel.limits = limits
    space = compute.cache.space(kernel)
    frozen = [SampleError("timeout", "30 s"), SampleError("decoder_crash", "SIGKILL")]
    outcomes = [*frozen, {"length": 1}, SampleError("truncated", "ends too early")]
    rows = results(["k", "m", "n", "o"], outcomes, 0.1, kernel.result)
    values = {"attempt": 1, "environment": kernel.environment, "at": datetime.now(UTC)}
    for name, value in values.items():
        rows = rows.append_column(name, pa.array([value] * 4, space.schema.field(name).type))
    lance_datasets.append(space.uri, rows.select(space.schema.names).cast(space.schema))
    assert compute.count_missing(kernel, requests(["k", "m", "n", "o"])) == (4, 2)
    fail_once(compute, kernel)
    assert latest(compute, kernel)["k"]["attempt"] == 2
    assert latest(compute, kernel)["k"]["retryable"], "the old run does not count"
    assert counts(compute.run(kernel, requests(["k", "m", "n", "o"]))) == (2, 2, 0)


class Forgetful(Measure):
    def run(self, batch: pa.Table) -> pa.Table:
        return super().run(batch).slice(1)


class Loses(Lengths):
    def stages(self) -> list[Stage]:
        return [Forgetful(self.behaviour, self.result, self.batch_rows)]


def test_a_kernel_that_loses_rows_is_found_out(compute: KernelRunner) -> None:
    with pytest.raises(RuntimeError, match="lengths: 100 rows went in, 75 came out"):
        compute.run(Loses(), requests(KEYS))


class Doubles(Stage):
    """A second stage: works on what the first one computed."""

    def run(self, batch: pa.Table) -> pa.Table:
        doubled = pa.array(
            [None if value is None else value * 2 for value in batch["length"].to_pylist()], pa.int64()
        )
        return batch.set_column(batch.column_names.index("length"), "length", doubled)


class Chained(Lengths):
    def stages(self) -> list[Stage]:
        return [*super().stages(), Doubles()]


def test_stages_are_a_chain(compute: KernelRunner) -> None:
    compute.run(Chained(Behaviour(permanent={"key-0001"})), requests(KEYS))
    found = latest(compute, Chained())
    assert found["key-0000"]["length"] == 16
    assert found["key-0001"]["length"] is None


def test_progress_is_reported(compute: KernelRunner) -> None:
    seen: list[tuple[str, int, int]] = []
    with listen(lambda *item: seen.append(item)):
        compute.run(Lengths(batch_rows=40), requests(KEYS))
    assert seen == [("lengths", 40, 100), ("lengths", 80, 100), ("lengths", 100, 100)]


def test_where_it_computes(tmp_path: Path) -> None:
    cache = ComputeCache(Store(str(tmp_path)))
    with pytest.raises(RuntimeError, match="needs a Ray session"):
        KernelRunner(cache, mode="ray").run(Lengths(), requests(KEYS))
    assert (
        KernelRunner(cache, mode="auto", inline_seconds=0.0).run(Lengths(), requests(KEYS)).mode == "inline"
    )  # there is no session


def test_what_another_run_computed_meanwhile_is_stored_once(tmp_path: Path) -> None:
    """Two runs find the same misses; the second one to finish leaves out what the first has stored."""
    space, other = CacheSpace(Store(str(tmp_path)), Lengths()), CacheSpace(Store(str(tmp_path)), Lengths())
    asked = requests(KEYS)
    for one in (space, other):
        _, misses = spool_misses(one, asked)
        assert misses.rows == len(KEYS)
    answers = [
        {"key": key, "status": "ok", "retryable": False, "seconds": 0.0, "length": len(key)} for key in KEYS
    ]
    failed = [{**answers[0], "status": "failed", "error_class": "x", "retryable": True, "length": None}]
    space.append(pa.Table.from_pylist([*failed, *answers[1:4]], schema=Lengths().result), {})
    other.append(pa.Table.from_pylist(answers[:2], schema=Lengths().result), {})
    other.append(pa.Table.from_pylist(answers[2:], schema=Lengths().result), {})
    space.append(pa.Table.from_pylist(answers[4:], schema=Lengths().result), {})
    stored = lance_datasets.open_dataset(space.uri)
    assert stored is not None
    good = stored.to_table(filter="status = 'ok'")["key"].to_pylist()
    assert sorted(good) == sorted(KEYS)
