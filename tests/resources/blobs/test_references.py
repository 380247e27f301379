from __future__ import annotations

import os
from pathlib import Path
from uuid import uuid4

import pyarrow as pa
import pytest

from mm_embed_kernels.errors import SampleError
from mm_embed_kernels.identity import content_hash
from mm_embed_kernels.spec.fetch_policy import FetchPolicy
from mm_resources.blobs.blob_store import BlobStore
from mm_resources.blobs.references import Reference, reference_of
from mm_resources.objects.opener import ObjectOpener
from mm_resources.registry.registry import Registry
from mm_resources.storage.store import LARGE_BYTES, Store
from tests.resources.specs import spec_of
from tests.s3 import BUCKET, S3


@pytest.fixture
def blobs(tmp_path: Path) -> BlobStore:
    return BlobStore(Store(str(tmp_path / "store")))


@pytest.fixture(params=["folder", "s3://"])
def outside(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """The location of the sources."""
    if request.param == "folder":
        return Store(str(tmp_path / "data"))
    request.getfixturevalue("s3")
    return Store(f"s3://{BUCKET}/{uuid4().hex}")


def test_an_endpoint_of_before_is_not_asked(s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    """fsspec keeps file systems: one that was made for another endpoint is not taken for this one's."""
    outside = Store(f"s3://{BUCKET}/{uuid4().hex}")
    outside.write("a", b"here")
    with monkeypatch.context() as before:
        before.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
        before.setenv("AWS_MAX_ATTEMPTS", "1")
        with pytest.raises(Exception, match="Could not connect"):
            ObjectOpener(FetchPolicy()).tag(outside.uri("a"))
    assert ObjectOpener(FetchPolicy()).tag(outside.uri("a"))


def refer(outside: Store, data: bytes) -> Reference:
    outside.write("a", data)
    return Reference(outside.uri("a"), ObjectOpener(FetchPolicy()).tag(outside.uri("a")) or "")


@pytest.mark.parametrize("size", [5, LARGE_BYTES + 5])
def test_read_and_verified_where_it_lies(blobs: BlobStore, outside: Store, size: int) -> None:
    data = os.urandom(size)
    reference = refer(outside, data)
    assert reference_of(reference.path) == reference
    place = {"content_hash": content_hash(data), "path": reference.path, "offset": 0, "size": size}
    presence = pa.Table.from_pylist([place])
    found = blobs.media(**place)
    assert (found.read_bytes() if isinstance(found, Path) else found) == data
    assert blobs.presence_check().errors(presence) == [None]
    assert list(blobs.store.objects("blobs")) == [], "nothing was copied"

    outside.write("a", b"x" + data[1:])
    with pytest.raises(SampleError, match=r"source_changed.*was referenced as .* and is .* now"):
        blobs.read(**place)
    (trouble,) = blobs.presence_check().errors(presence)
    assert trouble is not None
    assert (trouble.error_class, trouble.retryable) == ("source_changed", True)
    outside.remove("a")
    with pytest.raises(SampleError, match=r"blob_missing.*is referenced, not copied, and is gone"):
        blobs.read(**place)
    (trouble,) = blobs.presence_check().errors(presence)
    assert trouble is not None
    assert trouble.error_class == "blob_missing"


def test_other_bytes_under_the_same_tag(blobs: BlobStore, tmp_path: Path) -> None:
    """A file can be changed with its size and mtime kept; its bytes tell."""
    reference = refer(Store(str(tmp_path / "data")), b"first")
    info = os.stat(reference.uri)
    Path(reference.uri).write_bytes(b"other")
    os.utime(reference.uri, ns=(info.st_atime_ns, info.st_mtime_ns))
    with pytest.raises(SampleError, match=r"source_changed.*no longer holds the bytes"):
        blobs.read(content_hash(b"first"), reference.path, 0, 5)


def test_only_files_can_be_referenced(registry: Registry) -> None:
    with pytest.raises(ValueError, match="whole files; records and tracks are copied"):
        spec_of({"uri": "a.jsonl", "record": {"text": "t"}, "blobs": "reference"})


def test_a_spec_without_it_is_the_spec_that_it_was() -> None:
    plain = spec_of({"uri": "/a/*"})
    assert plain.digest == spec_of({"uri": "/a/*", "blobs": "copy"}).digest
    assert plain.digest != spec_of({"uri": "/a/*", "blobs": "reference"}).digest
