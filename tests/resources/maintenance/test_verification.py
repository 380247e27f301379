"""Verification finds missing and damaged blobs, and takes them off the index."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from mm_embed_kernels.errors import SampleError
from mm_embed_kernels.identity import content_hash
from mm_resources.blobs.blob_store import BlobStore
from mm_resources.maintenance.verification import VerifiedBatch, verify
from mm_resources.storage.store import LARGE_BYTES


def all_of(blobs: BlobStore, sample: int = 0) -> VerifiedBatch:
    parts = list(verify(blobs, sample))
    return VerifiedBatch(
        sum(part.blobs for part in parts),
        sum(part.bytes for part in parts),
        [bad for part in parts for bad in part.bad],
    )


def test_a_sound_store(blobs: BlobStore) -> None:
    assert list(verify(blobs)) == []
    blobs.put([b"a", b"bc"])
    blobs.put_stream(io.BytesIO(b"l" * (LARGE_BYTES + 1)))
    checked = all_of(blobs)
    assert (checked.blobs, checked.bytes, checked.bad) == (3, 3 + LARGE_BYTES + 1, [])
    some = all_of(blobs, sample=2)
    assert (some.blobs, some.bad) == (2, [])


def test_what_is_missing_or_damaged_is_named_and_struck(blobs: BlobStore, tmp_path: Path) -> None:
    good, flipped = blobs.put([b"good", b"flipped"])
    (lost,) = blobs.put([b"lost"])
    large, _ = blobs.put_stream(io.BytesIO(b"l" * (LARGE_BYTES + 1)))
    places = {row["content_hash"]: row for row in blobs.index.rows().read_all().to_pylist()}
    pack = tmp_path / places[flipped]["path"]
    pack.write_bytes(pack.read_bytes().replace(b"flipped", b"FLIPPED"))
    (tmp_path / places[lost]["path"]).unlink()
    (tmp_path / places[large]["path"]).write_bytes(b"m" * (LARGE_BYTES + 1))
    checked = all_of(blobs)
    assert checked.blobs == 1
    causes = {place.content_hash: error.error_class for place, error in checked.bad}
    assert causes == {flipped: "blob_damaged", lost: "blob_missing", large: "blob_damaged"}
    assert {row["content_hash"] for row in blobs.index.rows().read_all().to_pylist()} == {good}
    assert blobs.damage.hashes() == {flipped, lost, large}

    blobs.put([b"flipped"])
    blobs.damage.clear([flipped])
    assert blobs.damage.hashes() == {lost, large}
    assert blobs.read(**places[flipped]) == b"flipped", (
        "a reader with the damaged location finds the intact copy"
    )
    with pytest.raises(SampleError, match="blob_missing"):
        blobs.read(**places[lost])


def test_one_of_two_places_is_damaged(blobs: BlobStore, tmp_path: Path) -> None:
    """Two concurrent writers stored it twice; the other copy is intact, so nothing is fetched again."""
    other = BlobStore(blobs.store)
    assert content_hash(b"twice") not in other.index
    (digest,) = blobs.put([b"twice"])
    other.put([b"twice"])
    first = blobs.index.rows().read_all().to_pylist()[0]
    (tmp_path / first["path"]).write_bytes(b"TWICE")
    checked = all_of(blobs)
    assert (checked.blobs, len(checked.bad)) == (1, 1)
    assert blobs.damage.hashes() == set()
    assert blobs.read(**first) == b"twice"
    assert all_of(blobs).bad == []
    assert digest == first["content_hash"]
