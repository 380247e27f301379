"""TODO."""

from __future__ import annotations

from typing import Any

import numpy as np

_STEP = 16_384


def unpadded_length(flat: np.ndarray[Any, Any]) -> int:
    """How many values there are up to the last that is not zero, found from the end (`numpy.trim_zeros` looks at all of them)."""
    for end in range(len(flat), 0, -_STEP):
        start = max(0, end - _STEP)
        places = np.flatnonzero(flat[start:end])
        if len(places):
            return start + int(places[-1]) + 1
    return 0
