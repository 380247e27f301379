from __future__ import annotations

import io
import os
import pickle
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mm_embed_kernels.errors import SampleError
from mm_embed_kernels.identity import content_hash
from mm_resources.blobs import blob_store as module
from mm_resources.blobs.blob_store import BlobStore
from mm_resources.storage.store import LARGE_BYTES, Store
from tests.s3 import BUCKET, S3


def located(blobs: BlobStore) -> dict[str, dict[str, Any]]:
    """The index by hash; fails when a hash stands twice."""
    rows = blobs.index.rows().read_all().to_pylist()
    found = {row["content_hash"]: row for row in rows}
    assert len(found) == len(rows)
    return found


def packs(blobs: BlobStore) -> list[str]:
    return blobs.store.names("blobs/packs")


@settings(max_examples=10)
@given(st.lists(st.lists(st.binary(max_size=50), max_size=6), max_size=3))
def test_round_trip(tmp_path_factory: pytest.TempPathFactory, batches: list[list[bytes]]) -> None:
    blobs = BlobStore(Store(str(tmp_path_factory.mktemp("store"))))
    for batch in batches:
        assert blobs.put(batch) == [content_hash(data) for data in batch]
    found = located(blobs)
    everything = {data for batch in batches for data in batch}
    assert set(found) == {content_hash(data) for data in everything}
    assert {blobs.read(**row) for row in found.values()} == everything


def test_equal_bytes_are_stored_once(blobs: BlobStore) -> None:
    blobs.put([b"a", b"b", b"a"])
    blobs.put([b"b", b"c"])
    BlobStore(blobs.store).put([b"c", b"a", b"d"])  # another run
    assert len(located(blobs)) == 4
    assert len(packs(blobs)) == 3
    assert sum(blobs.store.sizes(f"blobs/packs/{name}" for name in packs(blobs)).values()) == 4
    blobs.put([b"a", b"d"])
    assert len(packs(blobs)) == 4  # d is new to this instance: stored twice, both good
    BlobStore(blobs.store).put([b"a", b"b", b"c", b"d"])
    assert len(packs(blobs)) == 4


def test_packs_are_cut(blobs: BlobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PACK_BYTES", 100)
    data = [bytes([i]) * 30 for i in range(10)]
    blobs.put(data)
    assert len(packs(blobs)) == 3
    assert {blobs.read(**row) for row in located(blobs).values()} == set(data)


def test_damaged_pack(blobs: BlobStore, tmp_path: Path) -> None:
    blobs.put([b"first", b"second", b"third"])
    (pack,) = packs(blobs)
    path = tmp_path / "blobs" / "packs" / pack
    damaged = bytearray(path.read_bytes())
    damaged[damaged.index(b"second")] ^= 1
    path.write_bytes(damaged)
    found = located(blobs)
    assert blobs.read(**found[content_hash(b"first")]) == b"first"
    assert blobs.read(**found[content_hash(b"third")]) == b"third"
    with pytest.raises(SampleError, match=r"no longer has its hash.*fetches it again") as caught:
        blobs.read(**found[content_hash(b"second")])
    assert caught.value.error_class == "blob_damaged"
    assert content_hash(b"second") in caught.value.message


def test_shortened_pack(blobs: BlobStore, tmp_path: Path) -> None:
    blobs.put([b"first", b"second"])
    (pack,) = packs(blobs)
    os.truncate(tmp_path / "blobs" / "packs" / pack, 7)
    found = located(blobs)
    assert blobs.read(**found[content_hash(b"first")]) == b"first"
    with pytest.raises(SampleError) as caught:
        blobs.read(**found[content_hash(b"second")])
    assert caught.value.error_class == "blob_damaged"


def test_missing_pack(blobs: BlobStore, tmp_path: Path) -> None:
    blobs.put([b"first"])
    (pack,) = packs(blobs)
    os.unlink(tmp_path / "blobs" / "packs" / pack)
    (row,) = located(blobs).values()
    with pytest.raises(SampleError) as caught:
        blobs.read(**row)
    assert caught.value.error_class == "blob_missing"
    assert blobs.store.sizes([row["path"], "blobs/packs/other"]) == {}


class Endless(io.RawIOBase):
    """A stream that can be read once and gives at most 1 MiB at a time."""

    def __init__(self, size: int) -> None:
        self.left, self.asked = size, 0

    def read(self, size: int = -1) -> bytes:
        self.asked = max(self.asked, size)
        assert size > 0, "a large blob must not be read at once"
        part = b"\x5a" * min(size, self.left, 1 << 20)
        self.left -= len(part)
        return part


def test_large_stream(blobs: BlobStore) -> None:
    size = 3 * LARGE_BYTES + 17
    stream: Any = Endless(size)
    digest, stored = blobs.put_stream(stream)
    assert stream.asked <= LARGE_BYTES
    assert (digest, stored) == (content_hash(b"\x5a" * size), size)
    (row,) = located(blobs).values()
    assert (row["path"], row["offset"], row["size"]) == (
        f"blobs/sha256/{digest[:2]}/{digest[2:4]}/{digest}",
        0,
        size,
    )
    assert blobs.read(**row) == b"\x5a" * size
    again: Any = Endless(size)
    assert blobs.put_stream(again) == (digest, size)
    assert BlobStore(blobs.store).put_stream(io.BytesIO(b"\x5a" * size)) == (digest, size)
    assert len(located(blobs)) == 1
    assert blobs.store.names("blobs/incoming") == []


def test_streams_and_packs_know_each_other(blobs: BlobStore) -> None:
    blobs.put([b"small"])
    assert blobs.put_stream(io.BytesIO(b"small")) == (content_hash(b"small"), 5)
    blobs.put_stream(io.BytesIO(b"other"))
    assert blobs.put([b"other"]) == [content_hash(b"other")]
    assert len(located(blobs)) == 2
    assert len(packs(blobs)) == 1


def test_a_put_that_failed_can_be_repeated(blobs: BlobStore) -> None:
    """Bytes that were not written must not count as stored."""

    def breaks_off() -> Iterator[bytes]:
        yield b"first"
        raise ConnectionError("gone")

    with pytest.raises(ConnectionError):
        blobs.put(breaks_off())
    blobs.put([b"first"])
    assert set(located(blobs)) == {content_hash(b"first")}


def test_a_failed_write_can_be_repeated(blobs: BlobStore, tmp_path: Path) -> None:
    (tmp_path / "blobs").mkdir()
    (tmp_path / "blobs" / "packs").write_bytes(b"a file where the folder should be")
    with pytest.raises(OSError, match="packs"):
        blobs.put([b"first"])
    (tmp_path / "blobs" / "packs").unlink()
    blobs.put([b"first"])
    (row,) = located(blobs).values()
    assert blobs.read(**row) == b"first"


def test_a_stream_that_failed_leaves_no_blob_and_can_be_repeated(blobs: BlobStore) -> None:
    class Broken(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            raise ConnectionError("gone")

    with pytest.raises(ConnectionError):
        blobs.put_stream(Broken())
    assert located(blobs) == {}
    assert blobs.put_stream(io.BytesIO(b"bytes"))[1] == 5
    assert len(located(blobs)) == 1


@pytest.mark.parametrize("round_", range(5))
def test_writers_at_once_lose_nothing(tmp_path: Path, round_: int) -> None:
    barrier = threading.Barrier(4)

    def write(i: int) -> None:
        blobs = BlobStore(Store(str(tmp_path)))
        barrier.wait()
        blobs.put([f"{i}-{j}".encode() for j in range(5)] + [b"shared"])

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(4)))
    blobs = BlobStore(Store(str(tmp_path)))
    rows = blobs.index.rows().read_all().to_pylist()
    assert {row["content_hash"] for row in rows} == {
        content_hash(f"{i}-{j}".encode()) for i in range(4) for j in range(5)
    } | {content_hash(b"shared")}
    assert all(content_hash(blobs.read(**row)) == row["content_hash"] for row in rows)


def test_reads_over_another_file_system() -> None:
    store = Store(f"memory://{uuid4().hex}")
    store.write("blobs/packs/p", b"xxdatax")
    assert BlobStore(store).read(content_hash(b"data"), "blobs/packs/p", 2, 4) == b"data"
    assert BlobStore(store).read(content_hash(b""), "blobs/packs/p", 2, 0) == b""
    with pytest.raises(SampleError, match="blob_missing"):
        BlobStore(store).read(content_hash(b"data"), "blobs/packs/q", 2, 4)


def test_travels_without_what_it_knows(blobs: BlobStore) -> None:
    blobs.put([b"a"])
    again = pickle.loads(pickle.dumps(blobs))
    assert again.index._known is None
    (row,) = located(again).values()
    assert again.read(**row) == b"a"


def test_a_fault_of_the_store_is_not_the_samples(blobs: BlobStore, tmp_path: Path) -> None:
    """It must not be cached as a permanent failure of the content."""
    (digest,) = blobs.put([b"first"])
    (row,) = located(blobs).values()
    pack = tmp_path / row["path"]
    kept = pack.read_bytes()
    pack.unlink()
    pack.mkdir()  # reading it raises an OSError that is not FileNotFoundError
    with pytest.raises(SampleError) as caught:
        blobs.read(**row)
    assert (caught.value.error_class, caught.value.retryable) == ("store_error", True)
    pack.rmdir()
    pack.write_bytes(kept)
    assert content_hash(blobs.read(**row)) == digest


def test_a_large_blob_is_a_file_that_was_verified(blobs: BlobStore, tmp_path: Path) -> None:
    data = bytes(range(256)) * (LARGE_BYTES // 256 + 1)
    digest, _ = blobs.put_stream(io.BytesIO(data))
    place = located(blobs)[digest]
    found = blobs.media(**place)
    assert isinstance(found, Path)
    assert found.read_bytes() == data
    with found.open("r+b") as stream:
        stream.write(b"x")
    with pytest.raises(SampleError) as caught:
        blobs.media(**place)
    assert (caught.value.error_class, caught.value.retryable) == ("blob_damaged", True)
    found.unlink()
    with pytest.raises(SampleError, match="fetches it again"):
        blobs.media(**place)


@pytest.fixture
def remote(s3: S3) -> BlobStore:
    return BlobStore(Store(f"s3://{BUCKET}/{uuid4().hex}"))


def test_a_large_blob_of_a_remote_store_is_copied_once(remote: BlobStore) -> None:
    data = b"r" * (LARGE_BYTES + 1)
    digest, _ = remote.put_stream(io.BytesIO(data))
    place = located(remote)[digest]
    first, second = (remote.media(**place) for _ in range(2))
    assert first == second
    assert isinstance(first, Path)
    assert first.read_bytes() == data


def test_a_damaged_copy_does_not_outlive_its_repair(remote: BlobStore) -> None:
    data = b"d" * (LARGE_BYTES + 1)
    digest, _ = remote.put_stream(io.BytesIO(data))
    place = located(remote)[digest]
    remote.store.write(place["path"], data[:-1] + b"x")
    with pytest.raises(SampleError, match="blob_damaged"):
        remote.media(**place)
    remote.store.write(place["path"], data)
    found = remote.media(**place)
    assert isinstance(found, Path)
    assert found.read_bytes() == data


class Counting(io.FileIO):
    """A local file that counts what is read of it."""

    done = 0

    def read(self, size: int | None = -1) -> bytes:  # type: ignore[override]
        part = super().read(size or -1) or b""
        Counting.done += len(part)
        return part


def test_known_bytes_of_a_file_are_not_sent(remote: BlobStore, tmp_path: Path, s3: S3) -> None:
    """It is hashed first, and read a second time only if it is new; nothing waits under another name for its hash."""
    (tmp_path / "large").write_bytes(data := os.urandom(LARGE_BYTES + 7))
    prefix = remote.store.root.rpartition("/")[-1]
    for again in (False, True):
        Counting.done = 0
        blobs = BlobStore(remote.store)
        with Counting(tmp_path / "large") as stream:
            assert blobs.put_stream(stream) == (content_hash(data), len(data))  # type: ignore[arg-type]
        assert Counting.done == len(data) * (1 if again else 2)
        assert len(located(blobs)) == len(s3.keys(f"{prefix}/blobs/sha256")) == 1
    assert s3.keys(f"{prefix}/blobs/incoming") == []


def test_a_file_that_changes_while_it_is_read_is_not_stored(
    remote: BlobStore, tmp_path: Path, s3: S3
) -> None:
    class Changing(io.FileIO):
        def seek(self, offset: int, whence: int = 0) -> int:
            path.write_bytes(b"y" * (LARGE_BYTES + 1))
            return super().seek(offset, whence)

    (path := tmp_path / "large").write_bytes(b"x" * (LARGE_BYTES + 1))
    with Changing(path) as stream, pytest.raises(SampleError, match="source_changed"):
        remote.put_stream(stream)  # type: ignore[arg-type]
    assert located(remote) == {}
    assert s3.keys(f"{remote.store.root.rpartition('/')[-1]}/blobs/sha256") == []


def test_a_large_object_that_was_never_indexed_is_written_over_while_it_is_young(
    blobs: BlobStore, tmp_path: Path
) -> None:
    """Garbage collection may be about to remove an old one, so that it is left alone."""
    digest, _ = blobs.put_stream(io.BytesIO(b"z" * 100))
    name = located(blobs)[digest]["path"]
    blobs.index.remove([digest])
    (tmp_path / name).write_bytes(b"y" * 100)
    blobs.put_stream(io.BytesIO(b"z" * 100))
    assert located(blobs)[digest]["path"] == name
    assert blobs.read(**located(blobs)[digest]) == b"z" * 100
    blobs.index.remove([digest])
    old = time.time() - 2 * module.RECENT.total_seconds()
    os.utime(tmp_path / name, (old, old))
    blobs.put_stream(io.BytesIO(b"z" * 100))
    place = located(blobs)[digest]
    assert place["path"] != name
    assert blobs.read(**place) == b"z" * 100
    assert blobs.store.names("blobs/incoming") == []


def test_a_small_blob_is_its_bytes(blobs: BlobStore) -> None:
    (digest,) = blobs.put([b"small"])
    assert blobs.media(**located(blobs)[digest]) == b"small"
