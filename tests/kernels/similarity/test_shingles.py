from __future__ import annotations

import random

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mm_embed_kernels.similarity import lsh, shingles
from tests.kernels.media_samples import ENGLISH, GERMAN, RUSSIAN

DICE = random.Random(0)
WORDS = ["".join(DICE.choices("abcdefghijklmnopqrstuvwxyz", k=DICE.randint(2, 9))) for _ in range(3_000)]


def exact(one: str, other: str) -> float:
    a, b = ({text[i : i + 5] for i in range(max(1, len(text) - 4))} for text in (one, other))
    return len(a & b) / len(a | b)


def resemblance(one: str, other: str) -> float:
    left, right = (pa.array([shingles.signature(text)[1]]) for text in (one, other))
    return float(shingles.agreement(left, right).whole[0])


def words(count: int, seed: int) -> list[str]:
    return random.Random(seed).choices(WORDS, k=count)


@pytest.mark.parametrize(
    "text",
    [
        ENGLISH,
        GERMAN,
        RUSSIAN,
        "a",
        "four",
        "fives",
        "sixsix",
        "\ud800 lone surrogate",
        "日本語の短い文章です。",
    ],
)
def test_signature(text: str) -> None:
    signature, sketch = shingles.signature(text)
    assert signature is not None
    assert sketch is not None
    assert len(signature) == 4 * shingles.PERMUTATIONS
    values = np.frombuffer(sketch, "<u4")
    assert list(values) == sorted(set(values.tolist()))
    assert resemblance(text, text) == 1.0
    assert shingles.signature(f"  {text.upper()}\n ") == shingles.signature(text.upper().casefold())


def test_nothing_has_no_signature() -> None:
    assert shingles.signature(" \n") == (None, None)


@given(
    st.text("ab ", min_size=1, max_size=60).filter(str.strip),
    st.text("ab ", min_size=1, max_size=60).filter(str.strip),
)
def test_resemblance_of_short_texts_is_exact(one: str, other: str) -> None:
    one, other = (" ".join(text.split()) for text in (one, other))
    assert resemblance(one, other) == pytest.approx(exact(one, other))


@pytest.mark.parametrize("lost", [0, 20, 100, 250])
def test_resemblance_of_long_texts_is_near(lost: int) -> None:
    """Of texts of different length, too; a standard error is 0.03."""
    for seed in range(5):
        text = words(1_000, seed)
        one, other = " ".join(text), " ".join(text[lost:])
        assert resemblance(one, other) == pytest.approx(exact(one, other), abs=0.1)


def test_resemblances_of_many_pairs_are_those_of_each() -> None:
    texts = [" ".join(words(count, count)) for count in (1, 5, 400, 12)]
    sketches = [shingles.signature(text)[1] for text in texts]
    pairs = [(a, b) for a in range(4) for b in range(4)]
    found = shingles.agreement(
        pa.array([sketches[a] for a, _ in pairs]), pa.array([sketches[b] for _, b in pairs])
    ).whole
    assert found.tolist() == [resemblance(texts[a], texts[b]) for a, b in pairs]
    assert len(shingles.agreement(pa.array([], pa.binary()), pa.array([], pa.binary())).whole) == 0


def test_a_signature_estimates_the_resemblance() -> None:
    for lost in (0, 3, 10):
        one, other = " ".join(words(40, 1)), " ".join(words(40, 1)[lost:])
        left, right = shingles.minhashes(pa.array([shingles.signature(text)[0] for text in (one, other)]))
        # Four standard deviations of 64 draws.
        assert (left == right).mean() == pytest.approx(
            exact(one, other), abs=4 * 0.5 / shingles.PERMUTATIONS**0.5
        )


@pytest.mark.parametrize("similarity", [0.3, 0.5, 0.8, 0.9, 0.99, 1.0])
def test_band_rows(similarity: float) -> None:
    rows = lsh.band_rows(similarity, 64)

    def recall(rows: int) -> float:
        return float(1 - (1 - similarity**rows) ** (64 // rows))

    assert recall(rows) >= 0.99
    assert rows == 64 or recall(rows + 1) < 0.99


def pairs(rows: list[tuple[int, int]], size: int = 7) -> set[tuple[int, int]]:
    """Candidates of (bucket, sample) rows."""
    table = pa.table([[bucket for bucket, _ in rows], [number for _, number in rows]], schema=lsh.ENTRY)
    return {
        pair
        for batch in lsh.candidates(table.to_batches(size))
        for pair in zip(*(column.to_pylist() for column in batch.columns), strict=True)
    }


def test_who_shares_a_bucket_is_a_candidate() -> None:
    assert pairs([(5, 0), (5, 1), (6, 1), (5, 2), (6, 3), (7, 4)]) == {(0, 1), (0, 2), (1, 2), (1, 3)}
    assert pairs([]) == set()
    assert pairs([(1, 1)]) == set()


def test_a_full_bucket_is_a_chain() -> None:
    """The cuts between batches cut no pair."""
    count = 40_000
    found = pairs([(9, number) for number in range(count)], 5_000)
    assert found == {(a, a + step) for step in range(1, lsh.NEIGHBOURS + 1) for a in range(count - step)}


def test_buckets_of_equal_bands_only() -> None:
    values = np.array([[1, 2, 3, 4, 5], [1, 2, 4, 3, 5], [3, 4, 1, 2, 5]], np.uint32)
    found = lsh.buckets(values, 2)
    assert found.shape == (3, 2)
    assert found[0, 0] == found[1, 0]
    assert len(set(found.reshape(-1).tolist())) == 5


@pytest.mark.parametrize("distance", [0, 1, 3, 5, 7])
def test_hashes_within_a_distance_share_bytes(distance: int) -> None:
    dice = np.random.default_rng(0)
    hashes = dice.integers(0, 2**64, 200, np.uint64)
    flips = [sum(1 << int(bit) for bit in dice.choice(64, distance, replace=False)) for _ in hashes]
    one, other = (
        lsh.byte_buckets(values, distance) for values in (hashes, hashes ^ np.array(flips, np.uint64))
    )
    assert (one == other).any(axis=1).all()
    strangers = (one == np.roll(one, 1, axis=0)).any(axis=1).mean()
    assert strangers < (0.1 if distance < 7 else 1)


def test_agreement_beside_what_is_common() -> None:
    """Counted by hand: the texts share `xxxxx..` alone, which is common; two of the others' shingles agree."""
    sketches = [np.array(values, "<u4").tobytes() for values in ([1, 2, 7, 9], [1, 2, 8, 9], [1, 2], [1, 2])]
    left, right = pa.array([sketches[0], sketches[2]]), pa.array([sketches[1], sketches[3]])
    found = shingles.agreement(left, right, np.array([1, 2], np.uint32))
    assert found.whole.tolist() == [3 / 5, 1.0]
    assert found.rest.tolist() == [1 / 3, 1.0]
    assert found.said.tolist() == [2, 0]
    plain = shingles.agreement(left, right)
    assert (plain.rest.tolist(), plain.said.tolist()) == ([3 / 5, 1.0], [4, 2])


def test_common_hashes_are_those_of_different_texts() -> None:
    sketches = [[1, 2**31], [1, 2**31], [1, 5], [2**31, 2**32 - 1], [], [2**31, 6]]
    packed = pa.array([np.array(values, "<u4").tobytes() for values in sketches])
    batches = [packed.slice(0, 2), packed.slice(2)]
    assert sorted(shingles.common_hashes(batches, 2).tolist()) == [1, 2**31]
    assert sorted(shingles.common_hashes(batches, 3).tolist()) == [2**31]
    assert shingles.common_hashes(reversed(batches), 3).tolist() == [2**31]
    assert shingles.common_hashes(batches, 4).tolist() == []
