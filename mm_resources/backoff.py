"""Pauses between tries of what failed for a transient cause."""

from __future__ import annotations

import random


def backoff_pause(tries: int, first: float, longest: float) -> float:
    """Return seconds to wait after some tries: exponential, full jitter (Brooker, AWS Blog, 2015).

    Args:
        tries: number of tries so far, from 1.
        first: upper bound of the first pause, seconds; doubled with each further one.
        longest: upper bound of any pause, seconds.
    """
    return random.uniform(0, min(longest, first * 2 ** (tries - 1)))
