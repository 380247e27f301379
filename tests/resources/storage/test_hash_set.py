from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mm_resources.storage import hash_set
from mm_resources.storage.hash_set import HashSet

# Few values, many of them with zeros at the end: what NumPy's strings drop.
SHORT = st.binary(min_size=1, max_size=2).map(lambda head: head.ljust(16, b"\0")) | st.binary(
    min_size=16, max_size=16
)


@given(st.lists(SHORT), st.lists(SHORT))
def test_is_a_set(stored: list[bytes], added: list[bytes]) -> None:
    known, truth = HashSet([stored]), set(stored)
    for digest in added:
        assert known.add(digest) == (digest not in truth)
        truth.add(digest)
    assert all(digest in known for digest in truth)
    assert bytes([1] * 15 + [0]) not in known or bytes([1] * 15 + [0]) in truth


def test_the_first_16_bytes_count() -> None:
    known = HashSet([[b"\xab" * 32]])
    assert b"\xab" * 16 + b"\xcd" * 16 in known
    assert b"\xab" * 15 + b"\xcd" * 17 not in known


def test_recent_members_are_merged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hash_set, "_RECENT", 8)
    known = HashSet()
    digests = [hashlib.sha256(str(i).encode()).digest() for i in range(1_000)]
    assert [known.add(digest) for digest in digests] == [True] * 1_000
    assert [known.add(digest) for digest in digests] == [False] * 1_000
    assert len(known) == 1_000
    assert len(known._recent) < 1_000 / 4
