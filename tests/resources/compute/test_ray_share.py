"""Pools that do not fit side by side would wait for each other for ever."""

from __future__ import annotations

import pytest

from mm_embed_kernels.kernels.base import Resources
from mm_resources.compute.ray_pipeline import cpu_share


@pytest.mark.parametrize("available", [1.0, 2.0, 3.0, 16.0])
@pytest.mark.parametrize("needs", [
    [Resources(num_cpus=1)], [Resources(num_cpus=1), Resources(num_cpus=1)], [Resources(num_cpus=1, actors=3), Resources(num_cpus=4, actors=2)],
])  # fmt: skip
def test_all_pools_fit_side_by_side(needs: list[Resources], available: float) -> None:
    share = cpu_share(needs, available)
    asked = [share(item.num_cpus) for item in needs]
    assert sum(cpus * item.actors for cpus, item in zip(asked, needs, strict=True)) <= available
    assert all(0 < cpus <= item.num_cpus for cpus, item in zip(asked, needs, strict=True))
    assert all(cpus < 1 or cpus == int(cpus) for cpus in asked), "above one, Ray takes whole CPUs"


def test_what_fits_is_left_as_it_is() -> None:
    share = cpu_share([Resources(num_cpus=1), Resources(num_cpus=2)], 4)
    assert (share(1), share(2)) == (1, 2)
