"""Connected components, edge by edge, by SciPy: memory for the nodes, not for the edges."""

from __future__ import annotations

from typing import Any

import numpy as np


def united(
    labels: np.ndarray[Any, Any], a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]
) -> np.ndarray[Any, Any]:
    """The components when edges are added.

    Args:
        labels: int32 [nodes], the component of each node so far, numbered from 0 without gaps; nodes beyond it are alone.
        a, b: int [edges], the nodes that belong together.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    if not len(a):
        return labels
    known = int(labels.max(initial=-1)) + 1
    more = max(0, int(max(a.max(), b.max())) + 1 - len(labels))
    labels, size = np.concatenate([labels, np.arange(known, known + more, dtype=np.int32)]), known + more
    graph = coo_array((np.ones(len(a), np.int8), (labels[a], labels[b])), shape=(size, size))
    return np.asarray(connected_components(graph, directed=False)[1][labels], np.int32)
