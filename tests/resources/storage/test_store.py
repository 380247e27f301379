from __future__ import annotations

import os
import pickle
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import pytest

from mm_resources.cell import Cell
from mm_resources.storage.store import Store
from tests.s3 import BUCKET

THREADS = 16


@pytest.fixture(params=["folder", "file://", "memory://", "s3://", "gs://"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param in ("s3://", "gs://"):
        return remote(request)
    roots = {
        "folder": str(tmp_path / "store"),
        "file://": f"file://{tmp_path}/store/",
        "memory://": f"memory://{uuid4().hex}/store",
    }
    return Store(roots[request.param])


@pytest.fixture(params=["folder", "s3://", "gs://"])
def shared(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """A store that many processes may use at once."""
    return Store(str(tmp_path)) if request.param == "folder" else remote(request)


def remote(request: pytest.FixtureRequest) -> Store:
    scheme = request.param.removesuffix("://")
    request.getfixturevalue({"s3": "s3", "gs": "gcs"}[scheme])
    return Store(f"{scheme}://{BUCKET}/{uuid4().hex}")


def together(work: Callable[[int], bool]) -> list[bool]:
    """`work(0..15)` in threads that begin at once."""
    barrier = threading.Barrier(THREADS)

    def begin(i: int) -> bool:
        barrier.wait()
        return work(i)

    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(begin, range(THREADS)))


def test_write_and_read(store: Store) -> None:
    assert not store.entry("a/b/c")
    store.write("a/b/c", b"one")
    store.write("a/b/c", b"other")
    assert store.entry("a/b/c")
    assert store.read("a/b/c") == b"other"
    store.write("empty", b"")
    assert store.read("empty") == b""
    with pytest.raises(FileNotFoundError):
        store.read("a/b/d")


def test_ranges(store: Store) -> None:
    store.write("pack", b"0123456789")
    assert store.read_range("pack", 2, 5) == b"234"
    assert store.read_range("pack", 4, 4) == b""
    assert store.read_range("pack", 8, 12) == b"89"
    with pytest.raises(FileNotFoundError):
        store.read_range("other", 0, 1)


def test_names(store: Store) -> None:
    for name in ("f/b", "f/a", "f/deep/c", "g"):
        store.write(name, b"")
    assert store.names("f") == ["a", "b", "deep"]
    assert store.names("nowhere") == []


def test_create_does_not_replace(store: Store) -> None:
    assert store.create("f/a", b"first")
    assert not store.create("f/a", b"second")
    assert store.read("f/a") == b"first"
    assert store.names("f") == ["a"]


def test_adopt(store: Store) -> None:
    store.write("incoming/x", b"bytes")
    store.adopt(store.path("incoming/x"), "deep/down/y")
    assert store.read("deep/down/y") == b"bytes"
    assert not store.entry("incoming/x")


def test_travels_to_workers_even_when_opened(store: Store) -> None:
    store.write("a", b"1")
    again = pickle.loads(pickle.dumps(store))
    assert again == store
    assert again.read("a") == b"1"


def test_uris(tmp_path: Path) -> None:
    assert Store(str(tmp_path)).uri("a.lance") == f"{tmp_path}/a.lance"
    assert Store(f"file://{tmp_path}").uri("a.lance") == f"{tmp_path}/a.lance"
    assert Store("memory://bucket/root/").uri("a.lance") == "memory://bucket/root/a.lance"
    assert [Store(root).is_local for root in ("/a", "file:///a", "memory://a", "s3://a")] == [
        True,
        True,
        False,
        False,
    ]


@pytest.mark.parametrize("round_", range(5))
def test_exactly_one_of_many_creates_wins(shared: Store, round_: int) -> None:
    won = together(lambda i: shared.create("pins/00000001.json", f"writer {i}".encode() * 1000))
    assert won.count(True) == 1
    assert shared.read("pins/00000001.json") == f"writer {won.index(True)}".encode() * 1000
    assert shared.names("pins") == ["00000001.json"]


def test_a_reader_never_sees_half_an_object(shared: Store) -> None:
    store = shared
    bodies = [bytes([i]) * (1 << 20) for i in range(4)]
    store.write("object", bodies[0])
    done = threading.Event()
    torn: list[int] = []

    def read() -> int:
        seen = 0
        while not done.is_set():
            if store.read("object") not in bodies:
                torn.append(seen)
            seen += 1
        return seen

    with ThreadPoolExecutor(2) as pool:
        readers = [pool.submit(read) for _ in range(2)]
        try:
            for i in range(60):
                store.write("object", bodies[i % 4])
        finally:
            done.set()
        assert all(reader.result() > 0 for reader in readers)
    assert torn == []
    assert (
        [entry.name for entry in store.entries(".")] == ["./object"]
        if store.is_local
        else store.entry("object")
    )


def test_writers_at_once_leave_one_whole_object(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    together(lambda i: store.write("deep/object", bytes([i]) * 100_000) is None)
    found = store.read("deep/object")
    assert len(found) == 100_000
    assert len(set(found)) == 1
    assert os.listdir(tmp_path / "deep") == ["object"]


def test_cell() -> None:
    cell = Cell("birds", "v1", "image")
    assert (cell.dataset_version, cell.partition_key, cell.path) == (
        "birds@v1",
        "birds@v1|image",
        "birds/v1/image",
    )


def test_a_writer_shows_all_or_nothing(store: Store) -> None:
    with store.writer("big/one", 9 << 20) as sink:
        for _ in range(9):
            sink.write(b"x" * (1 << 20))
    found = store.entry("big/one")
    assert found is not None
    assert (found.size, found.is_folder) == (9 << 20, False)
    assert store.sizes(["big/one", "big/none"]) == {"big/one": 9 << 20}
    if store.root.startswith("memory://"):
        return  # it shows what is being written

    def break_off() -> None:
        with store.writer("big/two") as sink:
            sink.write(b"x" * (9 << 20))
            raise RuntimeError("the source broke off")

    with pytest.raises(RuntimeError, match="broke off"):
        break_off()
    assert not store.entry("big/two")
    assert store.names("big") == ["one"]


def test_what_lies_in_a_store(store: Store) -> None:
    for name in ("blobs/packs/p", "blobs/sha256/ab/cd/abcd", "blobs/index.lance/data/x"):
        store.write(name, b"12")
    assert [(entry.name, entry.size) for entry in store.objects("blobs")] == [
        ("blobs/packs/p", 2),
        ("blobs/sha256/ab/cd/abcd", 2),
    ]
    assert list(store.tables("blobs")) == ["blobs/index.lance"]
    assert all(
        abs((datetime.now(UTC) - entry.modified).total_seconds()) < 3600 for entry in store.objects("blobs")
    )
    store.remove("blobs/packs/p")
    store.remove("blobs/packs/p")
    assert not store.entry("blobs/packs/p")


def test_another_process_is_seen_at_once(store: Store) -> None:
    """A pin is found by a listing, which no client may answer from what it remembers."""
    again = Store(store.root)
    assert again.names("pins") == []
    store.write("pins/1", b"")
    assert again.names("pins") == ["1"]
    store.write("pins/2", b"")
    assert again.names("pins") == ["1", "2"]
