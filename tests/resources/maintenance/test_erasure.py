"""Erased blobs leave no byte, their neighbours stay, and the index of a rewritten table is built again."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest

from mm_embed_kernels import sql
from mm_embed_kernels.errors import SampleError
from mm_embed_kernels.identity import content_hash
from mm_resources.blobs.blob_index import INDEX, Location
from mm_resources.blobs.blob_store import BlobStore
from mm_resources.blobs.receipts import Receipt, Receipts
from mm_resources.ingestion.fetch_kernel import REQUESTS, FetchKernel
from mm_resources.maintenance.erasure import erase
from mm_resources.registry.registry import Registry
from mm_resources.storage.store import LARGE_BYTES, Store
from tests.resources.specs import freeze, spec_of

SECRET = b"a secret of few bytes"


@pytest.fixture
def blobs(tmp_path: Path) -> BlobStore:
    return BlobStore(Store(str(tmp_path)))


def places(blobs: BlobStore) -> dict[str, Location]:
    return {row["content_hash"]: Location(**row) for row in blobs.index.rows().read_all().to_pylist()}


def lies_somewhere(blobs: BlobStore, data: bytes) -> bool:
    return any(data in path.read_bytes() for path in Path(blobs.store.root).rglob("*") if path.is_file())


def test_neighbours_in_a_pack_stay(blobs: BlobStore) -> None:
    blobs.put([b"first", SECRET, b"last", b"condemned"])
    condemned = places(blobs)[content_hash(b"condemned")]
    blobs.index.condemn([condemned])
    assert lies_somewhere(blobs, SECRET)
    assert erase(blobs, [content_hash(SECRET)]) == 1
    assert not lies_somewhere(blobs, SECRET)
    found = places(blobs)
    assert set(found) == {content_hash(data) for data in (b"first", b"last", b"condemned")}
    for data in (b"first", b"last", b"condemned"):
        assert blobs.read(**vars(found[content_hash(data)])) == data
    assert erase(blobs, [content_hash(SECRET)]) == 0
    assert places(blobs) == found, "clean packs are not rewritten"


def test_bytes_that_nobody_knows_of_go_too(blobs: BlobStore) -> None:
    """Bytes of a blob that left the index, and of a writer that died before its pack was indexed."""
    blobs.put([b"first", SECRET])
    blobs.index.remove([content_hash(SECRET)])
    blobs.store.write("blobs/packs/stray.pack", SECRET)
    assert erase(blobs, [content_hash(SECRET)]) == 0
    assert not lies_somewhere(blobs, SECRET)
    assert blobs.read(**vars(places(blobs)[content_hash(b"first")])) == b"first"


def test_a_damaged_neighbour_keeps_nothing_back(blobs: BlobStore) -> None:
    blobs.put([b"first", SECRET, b"last"])
    (pack,) = blobs.store.objects("blobs/packs")
    blobs.store.write(pack.name, blobs.store.read(pack.name).replace(b"last", b"lost"))
    erase(blobs, [content_hash(SECRET)])
    assert not lies_somewhere(blobs, SECRET)
    assert set(places(blobs)) == {content_hash(b"first")}
    assert blobs.damage.hashes() == {content_hash(b"last")}


def test_a_large_blob_goes_under_all_its_names(blobs: BlobStore) -> None:
    data = os.urandom(LARGE_BYTES + 1)
    digest, size = blobs.put_stream(io.BytesIO(data))
    place = places(blobs)[digest]
    blobs.store.write(f"{place.path}.1234abcd", data)
    assert erase(blobs, [digest]) == 1
    assert not lies_somewhere(blobs, data)
    with pytest.raises(SampleError, match="blob_missing"):
        blobs.read(digest, place.path, 0, size)
    assert places(blobs) == {}
    assert blobs.index.rows().schema.names == INDEX.names


@pytest.mark.parametrize("size", [20, LARGE_BYTES + 1])
def test_forgotten_content_is_refused_where_it_comes_again(data: Path, registry: Registry, size: int) -> None:
    """A small blob is refused before it is stored; a large one is stored, hashed, and removed again."""
    content, blobs = bytes(range(200)) * (size // 200 + 1), BlobStore(registry.store)
    (data / "again.bin").write_bytes(content)
    spec = spec_of({"uri": str(data), "modality": "text"})
    assert freeze(registry, spec) == [""]
    Receipts(registry.store).write(
        Receipt("7", content_hash(content), "2026-01-01T00:00:00", [content_hash(content)], done_at="now")
    )
    kernel = FetchKernel(spec, blobs)
    requests = sql.fetch(
        REQUESTS, listing=registry.listings.listing(spec, "text"), flavours=kernel.flavours()
    )
    stage = kernel.stages()[0]
    stage.setup()
    found = {
        row["content_hash"]: (row["error_class"], row["message"]) for row in stage.run(requests).to_pylist()
    }
    assert len(found) == len(requests)
    error_class, message = found.pop(None)
    assert error_class == "forgotten"
    assert "receipt 7" in message
    assert set(found) == set(places(blobs)), "the others are stored"
    assert not lies_somewhere(blobs, content)
