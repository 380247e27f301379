from __future__ import annotations

import io
from typing import Any

import numpy as np
import pyarrow as pa

from mm_assets.cells.plots import comparisons, costs, funnel, histograms, scatter
from mm_embed_kernels.rules import rule_set
from mm_resources.monitoring.distribution_drift import DistributionDrift


def pixels(png: bytes | None) -> Any:
    from PIL import Image

    assert png is not None
    with Image.open(io.BytesIO(png)) as image:
        return np.asarray(image.convert("RGB")).astype(int)


def share(picture: Any, colour: tuple[int, int, int]) -> float:
    """Of the pixels that have the colour, or nearly: thin lines are smoothed."""
    return float((np.abs(picture - np.array(colour)).sum(axis=2) < 90).mean())


BLUE, RED = (0x4F, 0x6B, 0xED), (0xD1, 0x45, 0x3B)


def test_a_funnel_narrows() -> None:
    wide, narrow = (pixels(funnel({"discovered": 100, "published": n})) for n in (100, 10))
    assert share(wide, BLUE) > 1.5 * share(narrow, BLUE) > 0


def test_costs_and_what_was_spared_stand_beside_each_other() -> None:
    spent, spared = (
        pixels(costs({"embeddings": a}, {"cache": b}, "USD")) for a, b in ((2.0, 0.1), (0.1, 2.0))
    )
    assert share(spent, BLUE) > 3 * share(spared, BLUE) > 0
    assert pixels(costs({"embeddings": 0.0}, {}, "USD")).size


def test_histograms_draw_thresholds_of_what_was_measured() -> None:
    rules = rule_set("text", {})
    signals = pa.table(
        {"words": pa.array([1, 5, 9, 30, None], pa.int64()), "language": ["en", "de", None, "en", "en"]}
    )
    assert share(pixels(histograms(signals, rules)), RED) > 0
    assert histograms(signals.select(["language"]), rules) is None
    assert histograms(pa.table({"words": pa.nulls(3, pa.int64())}), rules) is None


def test_values_that_differ_in_their_last_digits_are_drawn() -> None:
    near = np.array([0.1 + 0.2, 0.3, np.nextafter(0.3, 1)])
    assert (
        share(
            pixels(comparisons([DistributionDrift("v1", "vectors", "cosine", 0.0, 0.2, near, near[::-1])])),
            RED,
        )
        == 0
    )
    assert pixels(
        comparisons(
            [DistributionDrift("v1", "signals", "ticks", 0.0, 0.2, np.full(3, 1e18), np.full(2, 1e18 + 256))]
        )
    ).size
    assert pixels(histograms(pa.table({"words": [2**60, 2**60 + 1]}), rule_set("text", {}))).size


def test_scatter_tells_labels_apart() -> None:
    rng = np.random.default_rng(0)
    vectors = np.concatenate([rng.normal(0, 0.1, (50, 8)), rng.normal(1, 0.1, (50, 8))]).astype(np.float32)
    assert share(pixels(scatter(vectors, ["a"] * 50 + [None] * 50)), (0x1F, 0x77, 0xB4)) > 0
    assert scatter(vectors[:2], ["a", "b"]) is None
    assert scatter(np.ones((5, 8), np.float32), ["a"] * 5) is not None, (
        "vectors that are all alike are no error"
    )


def test_comparisons_show_both_sides_and_what_has_drifted() -> None:
    rng = np.random.default_rng(0)
    near = DistributionDrift("v1", "labels", "a", 0.05, 0.1, {"a": 0.5, "b": 0.5}, {"a": 0.55, "c": 0.45})
    far = DistributionDrift("v1", "signals", "words", 0.9, 0.2, rng.normal(size=50), rng.normal(5, size=60))
    assert share(pixels(comparisons([near])), BLUE) > 0
    assert share(pixels(comparisons([near])), RED) == 0
    assert share(pixels(comparisons([near, far])), RED) > 0
    assert comparisons([]) is None
