"""Garbage collection removes unreferenced blobs, and nothing else, beside running ingests."""

from __future__ import annotations

import io
import os
import random
import shutil
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pyarrow as pa
import pytest

from mm_embed_kernels.contracts import RAW_ASSETS
from mm_embed_kernels.errors import SampleError, UserError
from mm_embed_kernels.identity import content_hash
from mm_resources.blobs import blob_index
from mm_resources.blobs.blob_store import BlobStore
from mm_resources.blobs.receipts import Receipt
from mm_resources.catalog import Catalog
from mm_resources.cell import Cell
from mm_resources.maintenance import garbage_collection
from mm_resources.maintenance.garbage_collection import CollectionResult
from mm_resources.storage.store import LARGE_BYTES, Store
from mm_resources.tables.stage_refs import StageMeta
from mm_resources.tables.stage_tables import StageTables
from tests.s3 import BUCKET

NOW = timedelta(0)
CELL = Cell("birds", "v1", "text")


# In a bucket each collection waits for the next whole second: one test of it in `make test`, the whole step by step.
@pytest.fixture(params=["folder", pytest.param("s3://", marks=pytest.mark.slow)])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "folder":
        return Store(str(tmp_path / "store"))
    request.getfixturevalue("s3")
    return Store(f"s3://{BUCKET}/{uuid4().hex}")


def collect(catalog: Catalog, grace: timedelta, dry_run: bool = False) -> CollectionResult:
    """Collect once all that was written is older than now: the times of S3's objects are whole seconds."""
    if not catalog.store.is_local:
        time.sleep(1.1)
    return garbage_collection.collect(catalog, grace, dry_run)


def reference(store: Store, hashes: list[str], cell: Cell = CELL) -> None:
    """Publish a stage that references blobs, as `raw_assets` does."""
    tables = StageTables(store)
    now = datetime.now(UTC)
    rows = [
        {
            "sample_id": f"{i:032x}", "dataset": cell.dataset, "version": cell.version, "source": "s", "key": str(i), "source_uri": str(i),
            "entity_id": f"{i:032x}", "status": "fetched", "content_hash": digest, "modified_at": now,
        }
        for i, digest in enumerate(hashes)
    ]  # fmt: skip
    table = pa.Table.from_pylist(rows, schema=RAW_ASSETS.bare)
    read_version = tables.fence("raw_assets", cell)
    written = tables.write("raw_assets", cell, RAW_ASSETS, [table])
    meta = StageMeta("d", "i", written.rows, written.rows, 0, 0, 0, "e", "", {}, "run", now.isoformat())
    tables.commit("raw_assets", cell, written, meta, read_version)


def places(store: Store) -> dict[str, dict[str, Any]]:
    return {row["content_hash"]: row for row in BlobStore(store).index.rows().read_all().to_pylist()}


def objects(store: Store) -> list[str]:
    return sorted(entry.name for entry in store.objects("blobs"))


def twice(store: Store) -> list[CollectionResult]:
    return [collect(Catalog(store), NOW), collect(Catalog(store), NOW)]


@pytest.mark.parametrize("store", ["folder", "s3://"], indirect=True)
def test_what_is_referenced_stays_and_the_rest_goes_in_two_steps(store: Store) -> None:
    large = os.urandom(LARGE_BYTES + 1)
    hashes = [*BlobStore(store).put([b"used", b"other" * 10]), *BlobStore(store).put([b"garbage"])]
    hashes.append(BlobStore(store).put_stream(io.BytesIO(large))[0])
    reference(store, hashes[:1])
    kept = places(store)[hashes[0]]
    before = objects(store)
    dry = collect(Catalog(store), NOW, dry_run=True)
    assert (dry.referenced, dry.condemned, dry.removed) == (1, 3, 0)
    assert objects(store) == before
    assert set(places(store)) == set(hashes)

    first, second = twice(store)
    assert (first.condemned, first.removed, first.objects) == (3, 0, 0)
    assert (second.condemned, second.removed, second.rewritten) == (0, 3, 1)
    assert set(places(store)) == {hashes[0]}
    assert BlobStore(store).read(**kept) == b"used", (
        "a reader that knows the old pack finds the blob in the new one"
    )
    third = collect(Catalog(store), NOW)
    assert third.objects + second.objects == 3
    (pack,) = objects(store)
    assert pack == places(store)[hashes[0]]["path"]


def test_what_is_young_stays(store: Store) -> None:
    (digest,) = BlobStore(store).put([b"young"])
    store.write("blobs/packs/stray.pack", b"written and not indexed yet")
    assert collect(Catalog(store), timedelta(hours=1)) == CollectionResult()
    assert set(places(store)) == {digest}
    assert len(objects(store)) == 2


@pytest.mark.parametrize("ahead", [timedelta(days=-40), timedelta(days=40)])
def test_the_clock_of_the_machine_does_not_matter(
    store: Store, monkeypatch: pytest.MonkeyPatch, ahead: timedelta
) -> None:
    """What is young by the clock of the store stays, and what is condemned stays for a grace period."""
    (digest,) = BlobStore(store).put([b"young"])
    store.write("blobs/packs/stray.pack", b"written and not indexed yet")

    class Ahead(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return datetime.now(tz) + ahead

    for module in (garbage_collection, blob_index):
        monkeypatch.setattr(module, "datetime", Ahead)
    assert collect(Catalog(store), timedelta(hours=1)) == CollectionResult()
    assert set(places(store)) == {digest}
    assert collect(Catalog(store), timedelta(seconds=-5)).condemned == 1
    assert collect(Catalog(store), timedelta(hours=1)).removed == 0
    assert collect(Catalog(store), timedelta(seconds=-5)).removed == 1


def test_nothing_is_collected_beside_an_incomplete_forgetting(store: Store) -> None:
    Catalog(store).receipts.write(Receipt("r", "asked", "2026-01-01T00:00:00+00:00"))
    with pytest.raises(UserError, match="forgetting asked is not complete"):
        collect(Catalog(store), NOW)


def test_strays_go(store: Store) -> None:
    store.write("blobs/packs/stray.pack", b"its writer died")
    (digest,) = BlobStore(store).put([b"used"])
    reference(store, [digest])
    assert collect(Catalog(store), NOW) == CollectionResult(referenced=1, objects=1, bytes=15)
    assert len(objects(store)) == 1


def test_a_superseded_version_still_references(store: Store) -> None:
    old, new = BlobStore(store).put([b"old", b"new"])
    reference(store, [old])
    reference(store, [new])
    assert collect(Catalog(store), NOW).condemned == 0


def test_a_condemned_blob_that_an_ingest_took_for_stored_comes_back(store: Store) -> None:
    ingest = BlobStore(store)
    (digest,) = ingest.put([b"shared"])  # this ingest takes it for stored from here on
    place = places(store)[digest]
    assert collect(Catalog(store), NOW).condemned == 1
    assert ingest.put([b"shared"]) == [digest]
    reference(store, [digest])
    assert places(store) == {}
    assert BlobStore(store).read(**place) == b"shared", "a condemned blob keeps its bytes"
    assert all(found == place for found in BlobStore(store).index.referable_rows().read_all().to_pylist())
    assert BlobStore(store).index.referable_rows().read_all().num_rows > 0
    assert collect(Catalog(store), NOW) == CollectionResult(referenced=1, restored=1)
    assert places(store) == {digest: place}


def test_what_is_struck_is_stored_anew(store: Store) -> None:
    large = os.urandom(LARGE_BYTES + 1)
    digest, _ = BlobStore(store).put_stream(io.BytesIO(large))
    twice(store)
    assert places(store) == {}
    assert BlobStore(store).put_stream(io.BytesIO(large))[0] == digest
    reference(store, [digest])
    twice(store)
    assert BlobStore(store).read(**places(store)[digest]) == large


def test_a_killed_collection_loses_nothing(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a kill at any step referenced blobs are readable, and the next collection goes on."""
    used, *_ = BlobStore(store).put([b"used", *(f"garbage {i}".encode() for i in range(5))])
    reference(store, [used])

    class Killed(BaseException):
        pass

    for step in (
        "strike",
        "mark",
        "sweep",
        "condemn",
        "rewrite",
        "remove_strays",
        "strike",
        "mark",
        "sweep",
        "condemn",
        "rewrite",
    ):
        real = getattr(garbage_collection._Collection, step)

        def killed(*words: Any, real: Any = real) -> None:
            real(*words)
            raise Killed

        with monkeypatch.context() as patched:
            patched.setattr(garbage_collection._Collection, step, killed)
            with pytest.raises(Killed):
                collect(Catalog(store), NOW)
        assert BlobStore(store).read(**places(store)[used]) == b"used"
    twice(store)
    assert set(places(store)) == {used}
    assert len(objects(store)) == 1


def test_collections_beside_ingests(tmp_path: Path) -> None:
    """No referenced blob is missing while ingests store, reference and drop the same few blobs repeatedly."""
    store, grace = Store(str(tmp_path)), timedelta(seconds=2)
    contents = [f"blob {i}".encode() * 20 for i in range(12)] + [
        bytes([i]) * (LARGE_BYTES + 1) for i in range(2)
    ]
    done, trouble, totals = threading.Event(), [], CollectionResult()
    rounds: list[bool] = []

    def ingest(number: int) -> None:
        chosen, cell = random.Random(number), Cell("birds", f"v{number}", "text")
        while not done.is_set():
            began, blobs, wanted = time.monotonic(), BlobStore(store), chosen.sample(contents, 4)
            hashes = blobs.put(data for data in wanted if len(data) <= LARGE_BYTES)
            hashes += [blobs.put_stream(io.BytesIO(data))[0] for data in wanted if len(data) > LARGE_BYTES]
            time.sleep(chosen.random() / 4)
            reference(store, hashes, cell)
            known = {
                row["content_hash"]: row
                for row in BlobStore(store).index.referable_rows().read_all().to_pylist()
            }
            rounds.append(time.monotonic() - began < grace.total_seconds())
            # Only ingests that end within the grace period are protected.
            for digest in hashes if rounds[-1] else ():
                try:
                    assert content_hash(BlobStore(store).read(**known[digest])) == digest
                except (SampleError, KeyError) as error:
                    trouble.append(f"{number}: {digest}: {error!r}")
            # Drop the references again, with the table's whole history, as upkeep would.
            time.sleep(chosen.random())
            shutil.rmtree(StageTables(store).uri("raw_assets", cell))

    ingests = [threading.Thread(target=ingest, args=(i,)) for i in range(2)]
    for thread in ingests:
        thread.start()
    try:
        ends = time.monotonic() + 60

        def seen() -> bool:
            return sum(rounds) > 5 and totals.condemned > 0 and totals.removed > 0

        while time.monotonic() < ends and not trouble and not seen():
            try:
                found = collect(Catalog(store), grace)
            except (OSError, ValueError):
                continue  # a stage's table was removed during the collection
            totals.condemned, totals.removed, totals.restored = (
                totals.condemned + found.condemned, totals.removed + found.removed, totals.restored + found.restored,
            )  # fmt: skip
    finally:
        done.set()
        for thread in ingests:
            thread.join()
    assert trouble == []
    assert sum(rounds) > 5
    assert totals.condemned > 0, totals
    assert totals.removed > 0, totals
