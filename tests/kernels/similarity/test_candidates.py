"""Candidates of near-duplicates: which pairs are compared, and what agrees."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from mm_embed_kernels.rules import rules
from mm_embed_kernels.similarity import acoustic_fingerprint, frame_hashes
from tests.kernels.sample_rows import sample, table

# Ten minutes at 23 ms.
STEPS = 25_946


def test_long_recordings_are_not_compared_by_chance(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of six recordings of ten minutes, two are alike: in 9 of 10 steps."""
    dice = np.random.default_rng(0)
    sounds = dice.integers(1, 2**32, (6, STEPS), np.uint32)
    sounds[4] = np.where(dice.random(STEPS) < 0.9, sounds[1], sounds[4])
    rows = table(
        "audio",
        *(
            sample("audio", str(number), duration=600.0, fingerprint=steps.tobytes())
            for number, steps in enumerate(sounds)
        ),
    )
    compared = []
    whole = acoustic_fingerprint.overlap

    def overlap(one: Any, other: Any) -> Any:
        compared.append((len(one), len(other)))
        return whole(one, other)

    monkeypatch.setattr(acoustic_fingerprint, "overlap", overlap)

    def read(columns: list[str]) -> pa.RecordBatchReader:
        numbered = rows.append_column("n", pa.array(range(len(rows)), pa.int32())).select([*columns, "n"])
        return pa.RecordBatchReader.from_batches(numbered.schema, numbered.to_batches())

    matches = pa.concat_tables(list(rules()["near_duplicate_audio"]().matches(read)))
    assert [(row["a"], row["b"]) for row in matches.to_pylist()] == [(1, 4)]
    assert len(compared) == 1


def test_chance_counts_with_the_length() -> None:
    """16,000 of 128,000 buckets of each: 16,000 * 128,000 / 4 / 2**24 = 30.5, and three times its root."""
    sizes = np.array([[800.0, 800.0], [16_000.0, 16_000.0], [800.0, 16_000.0]])
    whole = np.array([[800.0, 800.0], [128_000.0, 128_000.0], [800.0, 128_000.0]])
    least = acoustic_fingerprint.least_shared(sizes, whole)
    assert least == pytest.approx([1.0, 47.1, 1.5], abs=0.1)


def test_frames_of_few_bits_must_agree_better() -> None:
    """Of 8 bits that either frame has, at most 2 may differ; of more than 24, 6."""
    second = np.arange(4, dtype=np.float32)
    one = np.zeros(4, frame_hashes.FRAME)
    one["second"], one["hash"] = second, [0xFF << shift for shift in (0, 16, 32, 48)]
    near, far = one.copy(), one.copy()
    near["hash"] ^= np.array([0x3 << shift for shift in (0, 16, 32, 48)], np.uint64)
    far["hash"] ^= np.array([0x7 << shift for shift in (0, 16, 32, 48)], np.uint64)
    shared = frame_hashes.overlap(one, near)
    assert shared is not None
    assert shared.score == 1 - 2 / 64
    assert frame_hashes.overlap(one, far) is None
