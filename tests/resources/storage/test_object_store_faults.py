"""A store on S3 behind a network that loses, cuts and delays: nothing is lost, nothing doubled."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pyarrow as pa
import pytest

from mm_embed_kernels.errors import SampleError
from mm_embed_kernels.identity import content_hash
from mm_resources.blobs.blob_store import BlobStore
from mm_resources.storage import filesystems, lance_datasets
from mm_resources.storage.lance_errors import Fenced
from mm_resources.storage.store import LARGE_BYTES, Store
from tests.faulty_proxy import Fault, Faulty, faulty_proxy
from tests.s3 import BUCKET, S3, point_at

TABLE = pa.table({"a": [1, 2, 3]})


@pytest.fixture
def faulty(s3_server: S3, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Faulty]:
    with faulty_proxy(s3_server.port) as proxy:
        point_at(monkeypatch, s3_server.environment(proxy.endpoint), tmp_path)
        yield proxy


@pytest.fixture
def store(faulty: Faulty) -> Store:
    return Store(f"s3://{BUCKET}/{uuid4().hex}")


@pytest.mark.parametrize("kind", ["slow_down", "reset", "lost"])
def test_small_objects(store: Store, faulty: Faulty, kind: str) -> None:
    faulty.faults = [Fault(kind, f"{method} .*") for method in ("PUT", "HEAD", "DELETE")]
    store.write("a", b"written")
    assert store.sizes(["a"]) == {"a": 7}
    store.remove("a")
    assert faulty.left == 0
    assert not store.entry("a")


@pytest.mark.parametrize("kind", ["slow_down", "reset", "lost", "cut"])
def test_reading(store: Store, faulty: Faulty, kind: str) -> None:
    store.write("a", b"written")
    faulty.faults = [Fault(kind, "GET .*/a"), Fault(kind, "GET .*list-type")]
    assert store.read("a") == b"written"
    assert store.names("") == ["a"]
    faulty.faults += [Fault(kind, "GET .*/a")]
    assert store.read_range("a", 2, 5) == b"itt"
    assert faulty.left == 0


@pytest.mark.parametrize("kind", ["slow_down", "reset", "lost"])
def test_a_creation_knows_its_own(store: Store, faulty: Faulty, kind: str) -> None:
    """A writer whose answer was lost is told by its second try that the object exists; it is its own."""
    faulty.faults = [Fault(kind, "PUT .*/pin")]
    assert store.create("pin", b"run 1")
    assert faulty.left == 0
    assert not store.create("pin", b"run 2")
    faulty.faults = [Fault(kind, "PUT .*/pin")]
    assert not store.create("pin", b"run 3")
    assert store.read("pin") == b"run 1"


@pytest.mark.parametrize("kind", ["slow_down", "reset", "lost"])
@pytest.mark.parametrize("request_", ["POST .*uploads", "PUT .*partNumber=2", "POST .*uploadId", "HEAD"])
def test_large_objects(store: Store, faulty: Faulty, kind: str, request_: str, s3_server: S3) -> None:
    data = os.urandom(2 * LARGE_BYTES + 5)
    faulty.faults = [Fault(kind, request_)]
    digest, size = BlobStore(store).put_stream(io.BytesIO(data))
    assert (digest, size) == (content_hash(data), len(data))
    (row,) = BlobStore(store).index.rows().read_all().to_pylist()
    assert BlobStore(store).read(**row) == data
    kept = [
        key for key in s3_server.keys(f"{store.root.rpartition('/')[-1]}/blobs") if "index.lance" not in key
    ]
    assert [key.rpartition("/")[-1] for key in kept] == [digest]


def test_a_large_file_by_its_final_name(store: Store, faulty: Faulty, tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(data := os.urandom(LARGE_BYTES + 5))
    faulty.faults = [Fault("lost", "POST .*uploadId"), Fault("reset", "PUT .*partNumber=1")]
    with (tmp_path / "large").open("rb") as stream:
        digest, _ = BlobStore(store).put_stream(stream)
    assert faulty.left == 0
    (row,) = BlobStore(store).index.rows().read_all().to_pylist()
    found = BlobStore(store).media(**row)
    assert isinstance(found, Path)
    assert hashlib.sha256(found.read_bytes()).hexdigest() == digest == content_hash(data)


@pytest.mark.parametrize("kind", ["slow_down", "reset", "lost"])
@pytest.mark.parametrize("request_", ["PUT .*_versions", "PUT .*/data/", "PUT .*_transactions"])
def test_rows_are_appended_once(store: Store, faulty: Faulty, kind: str, request_: str) -> None:
    uri = store.uri("t.lance")
    lance_datasets.append(uri, TABLE)
    faulty.faults = [Fault(kind, request_)]
    lance_datasets.append(uri, TABLE)
    assert faulty.left == 0
    found = lance_datasets.open_dataset(uri)
    assert found is not None
    assert found.count_rows() == 6


@pytest.mark.parametrize("kind", ["slow_down", "reset", "lost"])
def test_a_table_is_replaced_once(store: Store, faulty: Faulty, kind: str) -> None:
    uri = store.uri("t.lance")
    faulty.faults = [Fault(kind, "PUT .*_versions")]
    read_version = lance_datasets.fence(uri, TABLE.schema)
    faulty.faults = [Fault(kind, "PUT .*_versions")]
    version = lance_datasets.overwrite(uri, TABLE.schema, TABLE.to_batches(), read_version, "mine")
    assert faulty.left == 0
    found = lance_datasets.open_dataset(uri)
    assert found is not None
    assert (found.version, found.count_rows()) == (version, 3)
    with pytest.raises(Fenced):
        lance_datasets.overwrite(uri, TABLE.schema, TABLE.to_batches(), read_version, "another's")


def test_reads_that_are_cut(store: Store, faulty: Faulty) -> None:
    uri = store.uri("t.lance")
    lance_datasets.append(uri, pa.table({"a": pa.array(range(50_000))}))
    faulty.faults = [
        Fault("cut", "GET .*/data/"),
        Fault("reset", "GET .*/data/"),
        Fault("slow_down", "GET .*_versions"),
    ]
    found = lance_datasets.reader(lance_datasets.open_dataset(uri), pa.schema([("a", pa.int64())])).read_all()
    assert found["a"].to_pylist() == list(range(50_000))


def test_a_body_that_stops_coming(store: Store, faulty: Faulty, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filesystems, "READ_SECONDS", 1)
    store.write("a", b"x" * 100_000)
    faulty.faults = [Fault("hang", "GET .*/a")]
    assert Store(store.root).read("a") == b"x" * 100_000
    assert faulty.left == 0


def test_a_store_that_stays_away_is_one_clear_failure(
    store: Store, faulty: Faulty, monkeypatch: pytest.MonkeyPatch
) -> None:
    (digest,) = BlobStore(store).put([b"small"])
    (row,) = BlobStore(store).index.rows().read_all().to_pylist()
    faulty.faults = [Fault("slow_down", "GET .*packs", 1000)]
    with pytest.raises(SampleError) as caught:
        BlobStore(store).read(**row)
    assert (caught.value.error_class, caught.value.retryable) == ("store_error", True)
    assert digest not in caught.value.message.split(":")[0]
    faulty.faults = [Fault("reset", "PUT .*/b", 1000)]
    with pytest.raises(OSError, match="b"):
        store.write("b", b"")


def test_a_server_that_is_killed_and_comes_back(
    s3_server: S3, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Writers go on where they were; what was said to be stored is."""
    server = S3(tmp_path / "disk")
    server.start()
    point_at(monkeypatch, server.environment(), tmp_path)
    blobs = BlobStore(Store(f"s3://{BUCKET}/restart"))
    told: list[str] = []
    stop = threading.Event()

    def write() -> None:
        for i in range(10_000):
            stored: list[str] = []
            while not stored:
                # Whoever waits longer than the store's clients do runs the same command again.
                with contextlib.suppress(OSError):
                    stored = blobs.put([f"blob {i}".encode()])
            told.extend(stored)
            if stop.is_set():
                return

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(2):
            before = len(told)
            while len(told) < before + 5 and writer.is_alive():
                time.sleep(0.01)
            server.kill()
            time.sleep(0.5)
            server.start()
        before = len(told)
        while len(told) < before + 5 and writer.is_alive():
            time.sleep(0.01)
        stop.set()
        writer.join()
        rows = BlobStore(blobs.store).index.rows().read_all().to_pylist()
        assert sorted(row["content_hash"] for row in rows) == sorted(told)
        assert len(told) >= 15
        assert all(content_hash(blobs.read(**row)) == row["content_hash"] for row in rows)
    finally:
        server.kill()


def test_credentials_come_from_the_environment_or_a_profile(
    faulty: Faulty, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """fsspec and Lance find the same endpoint and key either way."""
    endpoint = faulty.endpoint
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL", "AWS_REGION"):
        monkeypatch.delenv(name)
    (tmp_path / "config").write_text(f"[profile mine]\nregion = eu-other-1\nendpoint_url = {endpoint}\n")
    (tmp_path / "credentials").write_text(
        "[mine]\naws_access_key_id = AKIAOFPROFILE\naws_secret_access_key = hidden\n"
    )
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_PROFILE", "mine")
    store = Store(f"s3://{BUCKET}/{uuid4().hex}")
    faulty.keys.clear()
    store.write("a", b"1")
    assert faulty.keys == {"AKIAOFPROFILE"}
    faulty.keys.clear()
    lance_datasets.append(store.uri("t.lance"), TABLE)
    assert faulty.keys == {"AKIAOFPROFILE"}
