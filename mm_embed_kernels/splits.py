"""Leak-safe splits: a pure function of dataset and group, identical in every cell and version."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping


def split_of(dataset: str, group: str, shares: Mapping[str, float]) -> str:
    """The split of a group: its hash, as a point in [0, 1), falls into one of the cumulated shares.

    Args:
        dataset: name of the dataset, so that two datasets are split independently.
        group: entity id, or the declared group; all members go the same way.
        shares: split name -> share, summing to 1, in the spec's order.
    """
    raw = hashlib.sha256(f"split\0{dataset}\0{group}".encode()).digest()[:8]
    point = int.from_bytes(raw, "big") / 2**64
    edge = 0.0
    for name, share in shares.items():
        edge += share
        if point < edge:
            return name
    return [name for name, share in shares.items() if share > 0][-1]
