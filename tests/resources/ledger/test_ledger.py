"""What work takes, and the ledger that records it: also one that an older version began."""

from __future__ import annotations

import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from mm_embed_kernels.contracts import LEDGER
from mm_embed_kernels.identity import content_hash, environment_digest
from mm_embed_kernels.kernels.base import RESULT, Kernel, Resources, Stage
from mm_resources.blobs.blob_store import BlobStore
from mm_resources.cell import Cell
from mm_resources.compute.cache import ComputeCache
from mm_resources.compute.ray_pipeline import USAGE, USED, KernelActor, usage_of
from mm_resources.compute.ray_session import RaySession
from mm_resources.compute.runner import ComputeReport, KernelRunner
from mm_resources.ledger.ledger import Ledger, Spent, entries
from mm_resources.metering import Usage, UsageMeter
from mm_resources.storage import lance_datasets
from mm_resources.storage.store import Store
from mm_resources.tables.stage_refs import StageMeta

CELL = Cell("birds", "v1", "text")
META = StageMeta("d", "i", 3, 3, 0, 0, 0, "e", "", {}, "r", "now", samples=2)
# What the ledger held before work was measured.
OLD = pa.schema([item for item in LEDGER.bare][: LEDGER.bare.get_field_index("at") + 1])


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "store"))


def spent(run: str) -> list[dict[str, Any]]:
    probe, embed = (
        ComputeReport(name, name[0] * 64, "inline", 3, 1, 0, 1, 2.0, Usage(1.5, gpu))
        for name, gpu in (("p", 0.0), ("e", 4.0))
    )
    return entries(
        "embeddings",
        CELL,
        run,
        META,
        False,
        [probe, embed],
        Spent(5.0, Usage(3.5, 4.0, 10, 20, 5), 1 << 30, 3, 2),
    )


def old_row(run: str) -> dict[str, Any]:
    known = {name: None for name in OLD.names} | {
        "dataset": "birds",
        "version": "v1",
        "modality": "text",
        "stage": "embeddings",
    }
    figures = dict.fromkeys(("computed", "reused", "failed", "checkpoints", "rows"), 7) | {
        "kernel_seconds": 1.0,
        "seconds": 1.0,
    }
    return {**known, **figures, "run_id": run, "unchanged": False, "at": datetime.now(UTC)}


def test_a_stage_stands_once_in_the_sums(store: Store) -> None:
    ledger = Ledger(store)
    ledger.record(spent("r1"))
    first, second = ledger.run_rows("r1")
    assert (first["samples_in"], first["samples_out"], first["peak_bytes"], first["bytes_read"]) == (
        3,
        2,
        1 << 30,
        10,
    )
    assert (first["cpu_seconds"], first["kernel_cpu_seconds"], first["gpu_seconds"]) == (3.5, 1.5, 0.0)
    assert (
        second["cpu_seconds"],
        second["seconds"],
        second["kernel_cpu_seconds"],
        second["gpu_seconds"],
    ) == (None, 0.0, 1.5, 4.0)


def test_an_older_ledger_is_read_and_goes_on(store: Store) -> None:
    uri, ledger = store.uri("ledger/stages.lance"), Ledger(store)
    lance_datasets.append(uri, pa.Table.from_pylist([old_row("old")], schema=OLD))
    (row,) = ledger.run_rows("old")
    assert (row["computed"], row["cpu_seconds"], row["samples_in"]) == (7, None, None)
    ledger.record(spent("new"))
    assert ledger.run_rows("old") == [row]
    assert ledger.run_rows("new")[0]["cpu_seconds"] == 3.5
    assert lance_datasets.open_dataset(uri).schema.names == LEDGER.schema.names  # type: ignore[union-attr]


def test_runs_that_meet_an_older_ledger_at_once_all_land(store: Store) -> None:
    lance_datasets.append(
        store.uri("ledger/stages.lance"), pa.Table.from_pylist([old_row("old")], schema=OLD)
    )
    with ThreadPoolExecutor(6) as threads:
        list(threads.map(lambda n: Ledger(store).record(spent(f"r{n}")), range(6)))
    found = Ledger(store).read().read_all().to_pylist()
    assert sorted(row["run_id"] for row in found) == sorted(
        ["old", *(f"r{n}" for n in range(6) for _ in range(2))]
    )
    assert sum(row["cpu_seconds"] or 0 for row in found) == pytest.approx(6 * 3.5)


def test_children_count_while_they_live_and_after(store: Store) -> None:
    meter = UsageMeter()
    # Of memory that is touched, so that it is resident.
    spin = "import time; held = bytearray(b'x') * (150 << 20); began = time.process_time()\nwhile time.process_time() - began < 1.5: pass"
    child = subprocess.Popen(
        [sys.executable, "-c", f"{spin}\nprint(flush=True); input()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert child.stdout is not None
    child.stdout.readline()
    alive = meter.usage().cpu_seconds
    child.communicate(b"\n")
    assert alive >= 1.5
    assert meter.usage().cpu_seconds > alive - 1e-6, "sums of the same parts differ in their last digits"
    assert meter.peak_bytes > 150 << 20
    meter.close()


def test_bytes_are_counted_where_they_pass(store: Store) -> None:
    blobs, meter, data = BlobStore(store), UsageMeter(), b"x" * 70_000
    blobs.put([data])
    written = meter.usage().bytes_written
    assert 70_000 < written < 140_000, "the pack, and a row of its index"
    (place,) = blobs.index.rows().read_all().to_pylist()
    assert blobs.read(**place) == data
    assert meter.usage().bytes_read == 70_000
    assert place["content_hash"] == content_hash(data)
    with store.writer("large") as sink:
        sink.write(b"y" * 1_000)
    assert meter.usage().bytes_written == written + 1_000


@dataclass
class Busy(Stage):
    resources: Resources
    schema = pa.schema(RESULT)

    def run(self, batch: pa.Table) -> pa.Table:
        began = time.process_time()
        while time.process_time() - began < 0.05:
            pass
        return pa.Table.from_pylist(
            [{"key": key, "status": "ok"} for key in batch["key"].to_pylist()], schema=self.schema
        )


class BusyKernel(Kernel):
    name, scope, fingerprint, payload, seconds_per_row = "busy", "busy", "f" * 64, [], 0.05

    def __init__(self, *gpus: float) -> None:
        self.gpus = gpus

    def stages(self) -> list[Stage]:
        return [Busy(Resources(num_gpus=gpus)) for gpus in self.gpus]


def test_gpu_seconds_are_those_of_stages_that_ask_for_gpus(store: Store) -> None:
    requests = pa.table({"key": ["a", "b"]})
    report = KernelRunner(ComputeCache(store), mode="inline").run(BusyKernel(0, 2, 0.5), requests)
    assert 2.5 * 0.05 <= report.usage.gpu_seconds < 2.5 * report.seconds
    assert report.usage.bytes_written > 0
    again = KernelRunner(ComputeCache(store), mode="inline").run(BusyKernel(0, 2, 0.5), requests)
    assert (again.reused, again.usage.gpu_seconds, again.usage.bytes_written) == (2, 0.0, 0)


def test_what_workers_use_travels_with_their_results() -> None:
    """From stage to stage, once; on a cluster their CPU seconds are counted here, else they are descendants and seen anyway."""
    actors = [KernelActor(Busy(Resources(num_gpus=gpus)), environment_digest()) for gpus in (1, 2)]
    table = pa.table({"key": ["a", "b", "c"]})
    for _ in range(2):
        passed = actors[1](actors[0](table))
        used = usage_of(passed)
        # Both actors are one process here, so that the second one sees the first one's work as well.
        assert used.gpu_seconds >= 3 * 0.05
        assert used.cpu_seconds >= 2 * 0.05 - 0.02
    assert actors[0](table.slice(0, 0)).num_rows == 0
    meter = UsageMeter()
    results = RaySession(address="ray://elsewhere")._add_usage(_using(passed, Usage(1000.0, 1.0, 10, 20, 5)))
    assert results.column_names == Busy.schema.names
    counted = meter.usage()
    assert (counted.gpu_seconds, counted.bytes_read, counted.bytes_written, counted.bytes_transferred) == (
        1.0,
        10,
        20,
        5,
    )
    # A difference of two sums of floats, whose last digits are not exact.
    assert counted.cpu_seconds >= 1000 - 1e-6
    RaySession()._add_usage(_using(passed, Usage(1000.0)))
    assert meter.usage().cpu_seconds < 1900


def _using(results: pa.Table, used: Usage) -> pa.Table:
    return results.drop([USED]).append_column(USED, pa.array([asdict(used), None, None], USAGE))
