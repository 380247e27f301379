"""Versions that share a feature table: kills, zombies and races on the way from a base to its next version."""

from __future__ import annotations

import multiprocessing
import signal
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from mm_embed_kernels.contracts.features import vectors_of
from mm_resources.catalog import Catalog
from mm_resources.cell import Cell
from mm_resources.features.feature_tables import FeatureTables
from mm_resources.maintenance.upkeep import upkeep
from mm_resources.registry.pins import PinnedTable
from mm_resources.storage.lance_errors import Fenced
from tests.faults.conftest import FENCED, SECOND, TEXT
from tests.faults.published import Published, published
from tests.faults.victim import Fault, Home, Victim, lend_copy
from tests.resources.features.test_versions import Sample, content, samples, words
from tests.resources.maintenance import test_lineage_replays as lineages
from tests.resources.maintenance.test_lineage_replays import NOW, cell

BACKFILL = ("backfill", "tiny@v2")
# Each step of the protocol behind the data files.
STEPS = ("write_files", "restore", "update", "extend_indexes", "tag", "create registry/pins")
# Each run that is killed or stopped is a process of its own: half of them in `make test`.
steps = pytest.mark.parametrize(
    "steps", [pytest.param(STEPS[1::2], id="some"), pytest.param(STEPS, id="all", marks=pytest.mark.slow)]
)


@pytest.fixture
def home(memory: Path, prepared: Home) -> Iterator[Home]:
    with lend_copy(prepared, memory / "second") as home:
        yield home


def pin_of(home: Home, which: Cell) -> Any:
    return Catalog.open(home.store).registry.pins.get(which)


@steps
def test_killed_at_each_step(
    home: Home, expected_first: Published, expected_second: Published, steps: tuple[str, ...]
) -> None:
    """Readers of both versions see what they saw before, or from the pin on the new one; the next run publishes."""
    base = pin_of(home, TEXT)
    for step in steps:
        place = step if " " in step else f"{step} features/"
        run = home.mm(*BACKFILL, fault=Fault(label=place, side="after"))
        assert run.code == -signal.SIGKILL, (step, run.text)
        published(home.store, TEXT).assert_like(expected_first)
        assert pin_of(home, TEXT) == base
        assert (pin_of(home, SECOND) is None) == (step != STEPS[-1]), step
    done = home.mm(*BACKFILL)
    assert done.code == 0, done.text
    second = pin_of(home, SECOND)
    assert second.primary.table == base.primary.table, "one table for both"
    published(home.store, SECOND).assert_like(expected_second)
    upkeep(Catalog.open(home.store), NOW)
    published(home.store, TEXT).assert_like(expected_first)
    published(home.store, SECOND).assert_like(expected_second)


def stopped(home: Home, label: str) -> Victim:
    """Start a run that stops itself, and declare it dead."""
    zombie = home.start(*BACKFILL, fault=Fault(label=label, signal=signal.SIGSTOP))
    assert zombie.until_stopped(), (label, zombie.text)
    with dg.DagsterInstance.from_config(home.environment["DAGSTER_HOME"]) as instance:
        (run,) = instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED]))
        instance.report_run_failed(run, "it no longer answers")
    return zombie


@steps
def test_zombies_publish_nothing(
    home: Home, expected_first: Published, expected_second: Published, steps: tuple[str, ...]
) -> None:
    labels = [step if " " in step else f"{step} features/" for step in steps]
    zombies = [(label, stopped(home, label)) for label in labels]
    newer = home.mm(*BACKFILL)
    assert newer.code == 0, newer.text
    pins = [pin_of(home, each) for each in (TEXT, SECOND)]
    for label, zombie in zombies:
        zombie.go_on()
        assert zombie.join() == 1, (label, zombie.text)
        assert len([line for line in zombie.text.splitlines() if FENCED.search(line)]) == 1, zombie.text
        assert [pin_of(home, each) for each in (TEXT, SECOND)] == pins
        published(home.store, SECOND).assert_like(expected_second)
    published(home.store, TEXT).assert_like(expected_first)


# -- races of processes that write one table


def target(number: int, run: int) -> dict[int, Sample]:
    """The samples of one version as one run publishes them."""
    changed = {key: (100 * number + run, "a", f"words of run{number}x{run}") for key in range(number, 40, 9)}
    return samples(40) | changed


def write_once(root: str, number: int, run: int, barrier: Any, told: Any) -> None:
    """Publish a version on top of the first one; tell how it ended."""
    try:
        barrier.wait()
        lineages.publish(Catalog.open(root), number, target(number, run), 1)
    except Fenced as error:
        told.send((number, run, str(error)))
    except BaseException as error:
        told.send((number, run, f"{type(error).__name__}: {error}"))
        raise
    else:
        told.send((number, run, ""))


def check(features: FeatureTables, table: PinnedTable, rows: dict[int, Sample], version: str) -> None:
    """Check rows, text index and neighbours of a published version."""
    found = content(features, table.table, table.lance_version)
    names = {row["key"]: row["text"] for row in found}
    assert (len(found), names) == (len(rows), {str(key): text for key, (_, _, text) in rows.items()}), version
    assert words(features, table.table, table.lance_version, "words") == set(names)
    assert vectors_of(features.dataset(table.table, table.lance_version).to_table()).shape == (len(rows), 16)


def seen(catalog: Catalog, number: int, runs: range) -> str:
    """Check the published version against what its runs write; return which of them it is."""
    pin = catalog.registry.pins.get(cell(number))
    if pin is None:
        return ""
    text = (
        catalog.features.dataset(pin.primary.table, pin.primary.lance_version)
        .to_table(columns=["text"], filter=f"key = '{number}'")["text"][0]
        .as_py()
    )
    (run,) = [run for run in runs if text == f"words of run{number}x{run}"]
    check(catalog.features, pin.primary, target(number, run), pin.dataset_version)
    return text


def test_two_versions_and_three_runs_of_one_at_once(tmp_path: Path) -> None:
    """Four processes write one table while this one reads: each publishes what it meant to, or is fenced."""
    rounds = 3
    catalog = Catalog.open(tmp_path / "store")
    lineages.publish(catalog, 1, samples(40), None)
    context, ends = multiprocessing.get_context("forkserver"), []
    context.set_forkserver_preload(["mm_resources.catalog", "lance", "tests.faults.test_lineages"])
    for at in range(rounds):
        runs = [(2, 10 * at), *((3, 10 * at + run) for run in range(3))]
        barrier, processes, pipes = context.Barrier(len(runs)), [], []
        for number, run in runs:
            ours, theirs = context.Pipe(duplex=False)
            given = (str(tmp_path / "store"), number, run, barrier, theirs)
            process = context.Process(target=write_once, args=given)
            process.start()
            processes.append(process)
            pipes.append(ours)
        while any(process.is_alive() for process in processes):
            for number in (2, 3):
                seen(Catalog.open(tmp_path / "store"), number, range(10 * rounds))
        ends += [pipe.recv() for pipe in pipes]
        for process in processes:
            process.join()
        assert seen(catalog, 2, range(10 * rounds)) == f"words of run2x{10 * at}"
        assert seen(catalog, 3, range(10 * at, 10 * at + 3))
        check(catalog.features, catalog.registry.pins.get(cell(1)).primary, samples(40), "v1")
    counts = Counter((number, error.partition(";")[0]) for number, _, error in ends)
    assert counts[2, ""] == rounds
    assert rounds <= counts[3, ""] < 3 * rounds, "some were fenced by the pin"
    assert all(not error or "by another run" in error for _, error in counts), counts
    assert {
        table.table for number in (1, 2, 3) for table in catalog.registry.pins.get(cell(number)).tables
    } == {"t"}
    print(counts, "head", catalog.features.database.open_table("t").version, file=sys.stderr)
    upkeep(catalog, NOW)
    assert seen(catalog, 2, range(10 * rounds))
    check(catalog.features, catalog.registry.pins.get(cell(1)).primary, samples(40), "v1")
