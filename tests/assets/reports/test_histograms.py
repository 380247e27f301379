"""Histograms of signals: bins of an axis that includes the rule's threshold."""

from __future__ import annotations

import pyarrow as pa
import pytest

from mm_assets.reports.histograms import histogram


@pytest.mark.parametrize(
    ("values", "threshold", "log"),
    [
        ([0.0, 50, 100], 50, False),
        ([-10.0, 0, 90], -50, False),
        ([900.0, 1000, 1100], 5, True),
        ([5.0, 6, 7], 1e5, True),
        ([], 5, False),
    ],
)
def test_a_threshold_stands_where_the_values_part(values: list[float], threshold: float, log: bool) -> None:
    found = histogram(
        "r", "drop", "c", threshold, pa.chunked_array([pa.array([*values, None], pa.float64())])
    )
    assert sum(found.counts) == len(values)
    assert found.low <= threshold <= found.high
    assert found.log is log
    bins = len(found.counts)
    below = sum(count for place, count in enumerate(found.counts) if (place + 1) / bins <= found.at)
    assert below == sum(value < threshold for value in values)
