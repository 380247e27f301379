"""SIGKILL at commit boundaries: running the same command again publishes the result of an undisturbed run."""

from __future__ import annotations

import itertools
import random
import shutil
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from mm_resources.catalog import Catalog
from mm_resources.cell import Cell
from tests.assets.whole_path.test_video import slide
from tests.conftest import write_dataset
from tests.faults.conftest import TEXT
from tests.faults.published import Published, cached, published, stored
from tests.faults.victim import ADVANCING, CHECKPOINT_ROWS, Fault, Home
from tests.kernels.videos import encode_video

BACKFILL = ("backfill", "tiny@v1")
KERNELS = {
    "fetch": "fetch",
    "probe": "probe-text",
    "segment": "segment-text",
    "embed:wordllama": "embed-wordllama",
}


def assert_undisturbed(home: Home, cell: Cell, undisturbed: Home, expected: Published) -> None:
    """Check that publication, caches and blob index have lost and doubled nothing."""
    published(home.store, cell).assert_like(expected)
    assert cached(home.store) == cached(undisturbed.store)
    assert stored(home.store) == stored(undisturbed.store)


@pytest.mark.slow
def test_killed_again_and_again(home: Home, undisturbed: Home, expected: Published) -> None:
    """Kill each run a few boundaries later than the one before, until one completes."""
    kills = 0
    for at, side in itertools.cycle([(6, "before"), (5, "after"), (7, "before"), (4, "after")]):
        run = home.mm(*BACKFILL, fault=Fault(at, side, ADVANCING))
        if run.code != -signal.SIGKILL:
            break
        kills += 1
        assert kills < 30, home.passed()
    assert run.code == 0, run.text
    assert kills >= 10
    assert_undisturbed(home, TEXT, undisturbed, expected)
    assert {line["label"] for line in home.passed()} >= {line["label"] for line in undisturbed.passed()}


@pytest.mark.slow
def test_killed_between_a_tag_and_its_ref(home: Home, undisturbed: Home, expected: Published) -> None:
    """Kill where the rows of a stage are tagged, and no ref names them."""
    assert home.mm(*BACKFILL, fault=Fault(5, "after", "tag stages/")).code == -signal.SIGKILL
    assert home.mm(*BACKFILL).code == 0
    assert_undisturbed(home, TEXT, undisturbed, expected)


@pytest.mark.slow
def test_one_checkpoint_is_repeated_at_most(home: Home, undisturbed: Home, expected: Published) -> None:
    """Kill in each kernel when its second checkpoint is computed and not committed; the ledger of the run that
    completes counts computed and reused rows."""
    for place in KERNELS.values():
        assert home.mm(*BACKFILL, fault=Fault(2, "before", f"append cache/{place}/")).code == -signal.SIGKILL
    done = home.mm(*BACKFILL)
    assert done.code == 0, done.text
    assert_undisturbed(home, TEXT, undisturbed, expected)
    ledger = [row for row in Catalog.open(home.store).ledger.read().read_all().to_pylist() if row["computed"]]
    whole = {
        row["kernel"]: row["computed"]
        for row in Catalog.open(undisturbed.store).ledger.read().read_all().to_pylist()
        if row["computed"]
    }
    assert whole.keys() == KERNELS.keys()
    assert {row["kernel"]: (row["computed"], row["reused"]) for row in ledger} == {
        kernel: (count - CHECKPOINT_ROWS, CHECKPOINT_ROWS) for kernel, count in whole.items()
    }
    begun, committed = checkpoints(home.passed(), "before"), checkpoints(home.passed(), "after")
    for kernel, place in KERNELS.items():
        assert committed[place] == whole[kernel]
        assert 0 < begun[place] - committed[place] <= CHECKPOINT_ROWS


def checkpoints(journal: list[dict[str, Any]], side: str) -> Counter[str]:
    """Count the rows of checkpoints by cache, over all runs: begun (``before``) or committed (``after``)."""
    rows: Counter[str] = Counter()
    for line in journal:
        if line["side"] == side and line["label"].startswith("append cache/"):
            rows[line["label"].split("/")[1]] += line["rows"]
    return rows


def killed_at_random(home: Home, dice: random.Random, kills: int, longest: float) -> None:
    """Kill runs at random moments, then let one complete."""
    for _ in range(kills):
        run = home.start(*BACKFILL)
        run.process.join(dice.uniform(0.1, longest))
        run.kill()
    done = home.mm(*BACKFILL)
    assert done.code == 0, done.text


def test_killed_at_random_moments(home: Home, undisturbed: Home, expected: Published) -> None:
    killed_at_random(home, random.Random(7), 3, 6)
    assert_undisturbed(home, TEXT, undisturbed, expected)


# -- every boundary, on a fresh store each; all modalities


@pytest.fixture(scope="module")
def everything(memory: Path, photos: dict[str, Path]) -> Home:
    """A store in which a dataset of texts, pictures and a video is registered."""
    folder = memory / "everything-data"
    spec = write_dataset(folder, photos)
    (folder / "film.mp4").write_bytes(encode_video(slide(photos["flower"], 3.0)))
    spec.write_text(spec.read_text().rstrip() + "\n  - {name: films, modality: video, uri: '*.mp4'}\n")
    home = Home(memory / "everything")
    assert home.mm("register", str(spec)).code == 0
    return home


@pytest.mark.slow
@pytest.mark.parametrize("modality", ["text", "image", "video"])
def test_every_boundary(everything: Home, memory: Path, modality: str) -> None:
    """Kill just before each boundary, which is just after the previous one, and run again to the end."""
    cell, words = Cell("tiny", "v1", modality), (*BACKFILL, "--modality", modality)
    undisturbed = everything.copy(memory / f"undisturbed-{modality}")
    assert undisturbed.mm(*words).code == 0
    expected = published(undisturbed.store, cell)
    for at in itertools.count(1):
        home = everything.copy(memory / f"{modality}-{at}")
        killed = home.mm(*words, fault=Fault(at))
        if killed.code == 0:
            break
        assert killed.code == -signal.SIGKILL, (at, killed.text)
        done = home.mm(*words)
        assert done.code == 0, (at, done.text)
        assert_undisturbed(home, cell, undisturbed, expected)
        shutil.rmtree(home.root)
        assert at < 300
    shutil.rmtree(home.root)
    shutil.rmtree(undisturbed.root)
    print(f"{modality}: killed at each of {at - 1} boundaries")
    assert at > 60


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_many_random_moments(home: Home, expected: Published, seed: int) -> None:
    killed_at_random(home, random.Random(seed), 8, 8)
    published(home.store, TEXT).assert_like(expected)
    for keys in cached(home.store).values():
        assert sorted(set(keys)) == keys
