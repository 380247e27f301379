"""Erased blobs leave no byte, their neighbours stay, and the index of a rewritten table is built again."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import pytest

from mm_embed_kernels import sql
from mm_embed_kernels.errors import SampleError
from mm_embed_kernels.identity import content_hash
from mm_resources.blobs.blob_index import INDEX, BlobIndex, Location
from mm_resources.blobs.blob_store import BlobStore
from mm_resources.blobs.receipts import Receipt, Receipts
from mm_resources.ingestion.fetch_kernel import REQUESTS, FetchKernel
from mm_resources.maintenance.erasure import erase
from mm_resources.registry.registry import Registry
from mm_resources.storage import lance_datasets
from mm_resources.storage.store import LARGE_BYTES, Store
from tests.resources.specs import freeze, spec_of

SECRET = b"a secret of few bytes"


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


def test_a_pack_without_blobs_is_rewritten_to_none(blobs: BlobStore) -> None:
    blobs.put([SECRET])
    blobs.store.write("blobs/packs/stray.pack", b"of a writer that died")
    erase(blobs, [content_hash(SECRET)])
    assert list(blobs.store.objects("blobs/packs")) == []
    blobs.rewrite_pack("blobs/packs/never.pack")
    assert list(blobs.store.objects("blobs/packs")) == []


def test_trouble_of_the_store_loses_no_neighbour(blobs: BlobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pack that cannot be read now may be read later: it stays, and so do its rows."""
    blobs.put([b"first", SECRET, b"last"])
    before = places(blobs)

    read = Store.read_range

    def fail(store: Store, name: str, start: int, end: int) -> bytes:
        if name.startswith("blobs/packs"):
            raise ConnectionError("the store does not answer")
        return read(store, name, start, end)

    with monkeypatch.context() as patched:
        patched.setattr(Store, "read_range", fail)
        with pytest.raises(SampleError, match="store_error"):
            erase(blobs, [content_hash(SECRET)])
    for data in (b"first", b"last"):
        assert blobs.read(**vars(before[content_hash(data)])) == data
    assert blobs.damage.hashes() == set()
    assert erase(blobs, [content_hash(SECRET)]) == 0
    assert not lies_somewhere(blobs, SECRET)
    for data in (b"first", b"last"):
        assert blobs.read(**vars(before[content_hash(data)])) == data


def test_no_moment_without_a_neighbour(blobs: BlobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before and after each write to the store and its index, a reader of old locations finds every neighbour."""
    blobs.put([b"first", SECRET, b"last"])
    known, moments = places(blobs), set()

    def assert_readable(moment: str) -> None:
        moments.add(moment)
        for data in (b"first", b"last"):
            assert BlobStore(blobs.store).read(**vars(known[content_hash(data)])) == data, moment

    def around(owner: object, name: str) -> None:
        real = getattr(owner, name)

        def watched(*words: Any, **named: Any) -> Any:
            assert_readable(name)
            result = real(*words, **named)
            assert_readable(name)
            return result

        monkeypatch.setattr(owner, name, watched)

    for owner, name in (
        (lance_datasets, "append"),
        (lance_datasets, "delete"),
        (Store, "write"),
        (Store, "remove"),
    ):
        around(owner, name)
    erase(blobs, [content_hash(SECRET)])
    assert moments == {"append", "delete", "write", "remove"}


def test_a_blob_that_moves_while_it_is_looked_for(blobs: BlobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reader's look-up names a pack that is gone, too, when it is read."""
    blobs.put([b"first", SECRET, b"other secret"])
    old = places(blobs)[content_hash(b"first")]
    erase(blobs, [content_hash(SECRET)])
    real, moved = BlobIndex.locations, []

    def late(index: BlobIndex, digest: str) -> list[Location]:
        found = real(index, digest)
        if not moved:
            moved.append(erase(BlobStore(blobs.store), [content_hash(b"other secret")]))
        return found

    monkeypatch.setattr(BlobIndex, "locations", late)
    assert blobs.read(**vars(old)) == b"first"
    assert moved == [1]


def test_a_pack_that_is_indexed_while_it_is_removed(
    blobs: BlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A writer's pack looks like a leftover until it is indexed; whoever comes last stores its blobs again."""
    writer = BlobStore(blobs.store)
    real = BlobIndex.append

    def erase_before(index: BlobIndex, locations: list[Location]) -> None:
        if index is writer.index and not erased:
            erased.append(erase(blobs, [content_hash(SECRET)]))
        real(index, locations)

    erased: list[int] = []
    with monkeypatch.context() as patched:
        patched.setattr(BlobIndex, "append", erase_before)
        writer.put([b"new"])
    assert erased == [0]
    assert BlobStore(blobs.store).read(**vars(places(blobs)[content_hash(b"new")])) == b"new"

    # The same, with the row of the index written between the look at the index and the removal.
    def index_before(store: Store, name: str) -> None:
        if name == "blobs/packs/late.pack" and not late:
            late.append(name)
            store_row = Location(content_hash(b"late"), name, 0, 4)
            real(BlobIndex(store), [store_row])
        remove(store, name)

    late: list[str] = []
    remove = Store.remove
    blobs.store.write("blobs/packs/late.pack", b"late")
    monkeypatch.setattr(Store, "remove", index_before)
    erase(blobs, [content_hash(SECRET)])
    assert late
    place = places(blobs)[content_hash(b"late")]
    assert place.path != "blobs/packs/late.pack"
    assert BlobStore(blobs.store).read(**vars(place)) == b"late"


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
