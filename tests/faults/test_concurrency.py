"""Several processes at once: writers of one cell, writers of cells that share content, readers beside a writer."""

from __future__ import annotations

import dataclasses
import multiprocessing
import re
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from mm_embed_kernels.contracts import feature_contract
from mm_resources.catalog import Catalog
from mm_resources.cell import Cell
from mm_resources.retrieval.feature_store import FeatureStore
from tests.faults.conftest import FENCED, SENTENCES, TEXT, write_texts
from tests.faults.published import Published, cached, published
from tests.faults.victim import Fault, Home

BACKFILL = ("backfill", "tiny@v1")
REPUBLISHES = 10


@pytest.mark.slow
def test_a_second_run_of_a_cell_names_the_first_and_does_nothing(home: Home, expected: Published) -> None:
    first = home.start(*BACKFILL, fault=Fault(label="append cache/embed", signal=signal.SIGSTOP))
    assert first.until_stopped(), first.text
    second = home.mm(*BACKFILL)
    assert second.code == 3
    (told,) = second.text.splitlines()
    assert re.fullmatch(
        rf"tiny@v1 text is busy: run \w{{8}} \(process {first.pid}\) is processing it; nothing was done; "
        "run the same command when that run has ended",
        told,
    )
    first.go_on()
    assert first.join() == 0, first.text
    published(home.store, TEXT).assert_like(expected)


def test_two_runs_of_a_cell_that_begin_at_once(home: Home, expected: Published) -> None:
    """One publishes; the other is refused at its start, is fenced, or finds nothing to do."""
    runs = [home.start(*BACKFILL) for _ in range(2)]
    codes = [run.join() for run in runs]
    assert 0 in codes, [run.text for run in runs]
    for code, run in zip(codes, runs, strict=True):
        told = [line for line in run.text.splitlines() if re.search(r"text is (failed|busy)", line)]
        assert (code, len(told)) in ((0, 0), (1, 1), (3, 1)), run.text
        assert all(FENCED.search(line) or (code == 3 and "is processing it" in line) for line in told), told
    published(home.store, TEXT).assert_like(expected)


@pytest.mark.slow
def test_cells_that_need_the_same_content_at_once(home: Home, tmp_path: Path, expected: Published) -> None:
    """Both compute the same keys before either commits them: both publish, and the cache returns each key once."""
    assert home.mm("register", str(write_texts(tmp_path, "other", SENTENCES[:5]))).code == 0
    runs = []
    for name in ("tiny", "other"):
        runs.append(
            home.start(
                "backfill", f"{name}@v1", fault=Fault(label="append cache/embed", signal=signal.SIGSTOP)
            )
        )
        assert runs[-1].until_stopped(), runs[-1].text
    for run in runs:
        run.go_on()
    assert [run.join() for run in runs] == [0, 0], [run.text for run in runs]
    published(home.store, TEXT).assert_like(expected)
    other = published(home.store, Cell("other", "v1", "text"))
    assert other.facts["status"]["published"] == 5
    held = next(keys for name, keys in cached(home.store).items() if name.startswith("embed-wordllama/"))
    assert len(set(held)) == len(SENTENCES)
    assert max(Counter(held).values()) == 2, "the two did not compute one key at once"


# -- readers


def rewrite(catalog: Catalog, number: int) -> None:
    """Publish a cell again as `feature_views` does, with other rows, which name their pin."""
    features, pin = catalog.features, catalog.registry.pins.get(TEXT)
    assert pin is not None
    pinned, rows = pin.primary, 3 + number % 5
    table = features.dataset(pinned.table, pinned.lance_version).to_table()
    table = pa.concat_tables([table] * 8).slice(0, rows)
    for column, values in (
        ("text", [f"{number} of {rows}"] * rows),
        ("feature_id", [f"f{i}" for i in range(rows)]),
    ):
        table = table.set_column(
            table.column_names.index(column), table.schema.field(column), pa.array(values)
        )
    next_number = catalog.registry.pins.next_number(TEXT)
    candidate = features.write_candidate(pinned.table, feature_contract(pinned.dimension, []), [table])
    tag = f"pin-{next_number}-v{candidate.lance_version}"
    features.tag(pinned.table, candidate.lance_version, tag)
    moved = dataclasses.replace(
        pinned,
        lance_version=candidate.lance_version,
        rows=candidate.rows,
        index=candidate.index,
        digest=candidate.digest,
        tag=tag,
    )
    catalog.registry.pins.publish(TEXT, dataclasses.replace(pin, number=next_number, tables=[moved]))


def read(root: str, ended: Any, seen: Any, progress: Any) -> None:
    """Search and scan until `ended` is set; every answer must be complete, and of one pin.

    `progress` is released at the first pin, and at the third.
    """
    answers: set[str] = set()
    try:
        while not ended.is_set():
            features = FeatureStore.open(root)
            hits = features.search([1.0] * 256, dataset_version="tiny@v1", modality="text", k=50)
            scanned = features.training_set("tiny@v1", modality="text", columns=["text"]).to_arrow()
            for found in (hits, scanned):
                (text,) = set(found["text"].to_pylist())
                assert found.num_rows == int(text.split(" of ")[1]), (text, found.num_rows)
                assert sorted(found["feature_id"].to_pylist()) == [f"f{i}" for i in range(found.num_rows)]
                if text not in answers and len(answers) in (0, 2):
                    progress.release()
                answers.add(text)
    except BaseException as error:
        seen.send(f"{type(error).__name__}: {error}")
        raise
    seen.send(answers)


def test_readers_see_one_pin_or_the_next(undisturbed: Home, memory: Path) -> None:
    root = undisturbed.copy(memory / "read").store
    rewrite(Catalog.open(root), 0)
    context = multiprocessing.get_context("forkserver")
    ended, progress, readers = context.Event(), context.Semaphore(0), []
    for _ in range(2):
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(target=read, args=(root, ended, theirs, progress))
        process.start()
        readers.append((process, ours))
    assert all(progress.acquire(timeout=240) for _ in readers)
    number, waiting = 0, 2
    while number < REPUBLISHES or waiting:
        number += 1
        rewrite(Catalog.open(root), number)
        waiting -= progress.acquire(block=False)
        if any(not process.is_alive() for process, _ in readers):
            break  # it has sent its error
    ended.set()
    answers = [pipe.recv() for _, pipe in readers]
    for process, _ in readers:
        process.join()
    assert all(isinstance(found, set) for found in answers), answers
    assert all(len(found) > 2 for found in answers), answers
    assert Catalog.open(root).registry.pins.get(TEXT).number == number + 2
