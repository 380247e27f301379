"""Arrays padded with zeros."""

from __future__ import annotations

from typing import Any

import numpy as np

# Values that are searched at once.
_STEP = 16_384


def unpadded_length(flat: np.ndarray[Any, Any]) -> int:
    """Return the number of values up to the last one that is not zero.

    The search begins at the end, where `numpy.trim_zeros` reads all values.
    """
    for end in range(len(flat), 0, -_STEP):
        start = max(0, end - _STEP)
        sounding = np.flatnonzero(flat[start:end])
        if len(sounding):
            return start + int(sounding[-1]) + 1
    return 0
