"""Forgetting beside readers, in processes of their own, and killed at its boundaries."""

from __future__ import annotations

import hashlib
import itertools
import json
import multiprocessing
import shutil
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from mm_embed_kernels.errors import SampleError
from mm_embed_kernels.identity import content_hash
from mm_resources.blobs.blob_index import INDEX
from mm_resources.catalog import Catalog
from mm_resources.exports.export import export
from mm_resources.features.removed_rows import RemovedRows
from mm_resources.retrieval.feature_store import FeatureStore
from tests.faults.conftest import SENTENCES, TEXT
from tests.faults.victim import Fault, Home

DIGESTS = [content_hash(text.encode()) for text in SENTENCES]
FORGOTTEN = (1, 4, 6)
ONE_LINE = r"rows of it were forgotten on|was forgotten \(receipt"


def locations(root: str) -> dict[str, dict[str, Any]]:
    """Return the location of each blob, as the published cell lists it."""
    table = Catalog.open(root).tables.read("content_blobs", TEXT, INDEX.names).read_all()
    return {row["content_hash"]: row for row in table.to_pylist()}


def read_blobs(root: str, known: dict[str, dict[str, Any]], refused: set[str]) -> None:
    """Read every blob by a location that was known before the first forgetting."""
    blobs = Catalog.open(root).blobs
    for digest, location in known.items():
        try:
            assert hashlib.sha256(blobs.read(**location)).hexdigest() == digest
        except SampleError as error:
            assert (error.error_class, digest in refused) == ("blob_missing", True), (digest, str(error))


def poll_blobs(root: str, ended: Any, seen: Any) -> None:
    known, rounds = locations(root), 0
    forgettable = {DIGESTS[number] for number in FORGOTTEN}
    seen.send("began")
    while not ended.is_set():
        read_blobs(root, known, forgettable)
        rounds += 1
    seen.send({"rounds": rounds})


def poll_searches(root: str, ended: Any, seen: Any) -> None:
    """Search with a store that stays open; every answer has all rows of a pin, and none is an error."""
    features, rows = FeatureStore.open(root), Counter[int]()
    seen.send("began")
    while not ended.is_set():
        hits = features.search([1.0] * 256, dataset_version="tiny@v1", modality="text", k=50)
        rows[hits.num_rows] += 1
        assert features.decisions("tiny@v1", "text").num_rows >= hits.num_rows
        kept = next(row for row in hits.to_pylist() if row["text"] == SENTENCES[0])
        assert features.explain(kept["feature_id"])["blob"]["content_hash"] == DIGESTS[0]
    seen.send({"rows": dict(rows)})


def poll_epochs(root: str, ended: Any, seen: Any) -> None:
    """Load epochs with media from one set until it is gone, then from the next one."""
    ends: Counter[str] = Counter()
    seen.send("began")
    while not ended.is_set():
        chosen = FeatureStore.open(root).training_set("tiny@v1", modality="text", columns=["text"])
        while not ended.is_set():
            try:
                texts = []
                for batch in chosen.to_torch(batch_size=2, shuffle=True, media=True):
                    assert [data.decode() for data in batch["media"]] == batch["text"]
                    texts += batch["text"]
                assert len(texts) == chosen.manifest["rows"]
                ends["whole"] += 1
            except RemovedRows as error:
                ends[str(error)] += 1
                break
    seen.send({"ends": dict(ends)})


def run(target: Any, *words: Any) -> None:
    """Run a reader; send the error that ends it."""
    try:
        target(*words)
    except BaseException as error:
        words[-1].send(f"{target.__name__}: {type(error).__name__}: {error}")
        raise


def test_readers_go_on_or_say_why(undisturbed: Home, memory: Path, tmp_path: Path) -> None:
    home = undisturbed.copy(memory / "beside-forgetting")
    features = FeatureStore.open(home.store)
    chosen = features.training_set("tiny@v1", modality="text", columns=["text"])
    loader = iter(chosen.to_torch(batch_size=1, media=True))
    next(loader)
    stream = chosen.stream()
    context = multiprocessing.get_context("forkserver")
    ended, readers = context.Event(), []
    for target in (poll_blobs, poll_searches, poll_epochs):
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(target=run, args=(target, home.store, ended, theirs))
        process.start()
        readers.append((process, ours))
    assert [pipe.recv() for _, pipe in readers] == ["began"] * 3
    for number in FORGOTTEN:
        done = home.mm("forget", DIGESTS[number], "--yes")
        assert done.code == 0, done.text
    ended.set()
    answers: dict[str, Any] = {}
    for process, pipe in readers:
        answer = pipe.recv()
        assert isinstance(answer, dict), answer
        answers |= answer
        process.join()
    assert answers["rounds"] > 1
    assert set(answers["rows"]) <= {len(SENTENCES) - n for n in range(4)}
    ends = answers["ends"]
    assert ends.pop("whole", 0) >= 0
    assert all("were forgotten on" in end or "was forgotten" in end for end in ends), ends

    # What began before the first forgetting ends in one line.
    with pytest.raises(RemovedRows, match=ONE_LINE) as told:
        list(loader)
    assert "\n" not in str(told.value)
    with pytest.raises(RemovedRows, match=ONE_LINE):
        list(stream)
    shutil.rmtree(home.root)


def test_each_way_to_read_a_removed_version_says_why(undisturbed: Home, memory: Path, tmp_path: Path) -> None:
    home = undisturbed.copy(memory / "removed-version")
    features = FeatureStore.open(home.store)
    chosen = features.training_set("tiny@v1", modality="text", columns=["text"])
    manifest = chosen.manifest
    plain, media = chosen.to_torch(batch_size=2), chosen.to_torch(batch_size=2, media=True)
    # Opened before, so that it is the media alone that are gone: the contents stay in memory.
    begun = iter(media)
    next(begun)
    assert home.mm("forget", DIGESTS[0], "--yes").code == 0
    reads = (
        lambda: list(plain),
        lambda: list(begun),
        lambda: list(chosen.stream()),
        lambda: chosen.to_arrow(),
        lambda: chosen.splits(),
        lambda: chosen.require_intact(),
        lambda: chosen.to_torch(shuffle=True),
        lambda: list(media),
        lambda: export(chosen, "parquet", tmp_path / "export"),
        lambda: export(chosen, "webdataset", tmp_path / "export"),
        lambda: features.training_set(manifest=manifest),
    )
    for number, read in enumerate(reads):
        with pytest.raises(RemovedRows, match=ONE_LINE) as told:
            read()
        assert "\n" not in str(told.value), number
    assert list(tmp_path.iterdir()) == [], "a broken export leaves nothing"
    assert features.training_set("tiny@v1", modality="text").manifest["rows"] == len(SENTENCES) - 1
    shutil.rmtree(home.root)


def assert_served(home: Home, known: dict[str, dict[str, Any]]) -> None:
    """Check that whatever a forgetting has done so far, readers are served."""
    read_blobs(home.store, known, {DIGESTS[0]})
    features = FeatureStore.open(home.store)
    hits = features.search([1.0] * 256, dataset_version="tiny@v1", modality="text", k=50)
    assert set(SENTENCES[1:]) <= set(hits["text"].to_pylist())
    chosen = features.training_set("tiny@v1", modality="text", columns=["text"])
    assert set(SENTENCES[1:]) <= set(chosen.to_arrow()["text"].to_pylist())


def assert_forgotten(home: Home) -> None:
    word = SENTENCES[0].encode()
    found = [path for path in Path(home.store).rglob("*") if path.is_file() and word in path.read_bytes()]
    assert found == []
    (receipt,) = Catalog.open(home.store).receipts.all()
    assert receipt.done_at
    packs = {entry.name: entry.size for entry in Catalog.open(home.store).store.objects("blobs/packs")}
    assert all(packs.values()), "no pack is empty"
    rows = Catalog.open(home.store).blobs.index.rows().read_all().to_pylist()
    assert sorted(row["content_hash"] for row in rows) == sorted(DIGESTS[1:]), "no row is doubled"
    assert {row["path"] for row in rows} == set(packs)


def killed_at(undisturbed: Home, root: Path, at: int) -> bool:
    """Kill a forgetting before one boundary, check the readers, and repeat it; False where it has ended before."""
    home = undisturbed.copy(root)
    known, words = locations(home.store), ("forget", DIGESTS[0], "--yes")
    killed = home.mm(*words, fault=Fault(at))
    if killed.code != 0:
        assert killed.code == -signal.SIGKILL, (at, killed.text)
        assert_served(home, known)
        done = home.mm(*words)
        assert done.code == 0, (at, done.text)
    assert_served(home, known)
    if killed.code != 0 and not Catalog.open(home.store).receipts.all()[0].samples:
        raise AssertionError(json.dumps(home.passed()))
    assert_forgotten(home)
    shutil.rmtree(home.root)
    return bool(killed.code != 0)


@pytest.mark.parametrize("at", [2, 5, 9, 12, 48])
def test_killed_at_some_boundaries(undisturbed: Home, memory: Path, at: int) -> None:
    """The first ones are those of the blobs; all of them: `test_killed_at_every_boundary`."""
    assert killed_at(undisturbed, memory / f"forget-{at}", at)


@pytest.mark.parametrize("removed", [pytest.param(False, marks=pytest.mark.slow), True])
def test_upkeep_keeps_what_an_interrupted_forgetting_has_written(
    undisturbed: Home, memory: Path, removed: bool
) -> None:
    """Its new tables, which no pin names yet, are as old as they may get; without them, it is done again."""
    home = undisturbed.copy(memory / f"upkeep-{removed}")
    known, words = locations(home.store), ("forget", DIGESTS[0], "--yes")
    assert home.mm(*words, fault=Fault(label="^write registry/pins/")).code == -signal.SIGKILL
    catalog = Catalog.open(home.store)
    (receipt,) = catalog.receipts.all()
    (moved,) = (each for name, each in receipt.moved.items() if "/" not in name)
    assert home.mm("upkeep", "--older-than-days", "0").code == 0
    assert catalog.features.has(moved["table"], moved["lance_version"])
    if removed:
        catalog.features.remove(moved["table"])
    done = home.mm(*words)
    assert done.code == 0, done.text
    assert_forgotten(home)
    assert_served(home, known)
    shutil.rmtree(home.root)


@pytest.mark.slow
def test_killed_at_every_boundary(undisturbed: Home, memory: Path) -> None:
    at = next(at for at in itertools.count(1) if not killed_at(undisturbed, memory / f"forget-{at}", at))
    print(f"killed at each of {at - 1} boundaries")
    assert at > 40
