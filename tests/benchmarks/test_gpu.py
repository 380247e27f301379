"""The benchmark of inference on a device runs on the CPU; there it says nothing about a GPU."""

from __future__ import annotations

import pytest

from benchmarks.gpu import WORKS, measure


@pytest.mark.parametrize(
    "work", [pytest.param(work, marks=[] if work == "audio" else pytest.mark.slow) for work in WORKS]
)
def test_both_sides_compute_the_same_vectors(work: str) -> None:
    found = measure(work, 3, "cpu")
    assert found.distance <= 1e-4, "else it has raised"
    assert found.ratio == pytest.approx(found.rate / found.loop_rate)
    assert found.busy is not None
    assert found.busy > 0
