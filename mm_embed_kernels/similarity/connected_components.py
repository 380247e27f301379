"""Connected components with edges added in batches, by SciPy: memory for the nodes, not for the edges."""

from __future__ import annotations

from typing import Any

import numpy as np


def merge_components(
    labels: np.ndarray[Any, Any], a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]
) -> np.ndarray[Any, Any]:
    """Return the components after edges are added, int32 [nodes], grown to the largest node of the edges.

    Args:
        labels: int32 [nodes], component of each node so far, numbered from 0 without gaps; nodes beyond it
            are alone.
        a: int [edges], one node of each edge.
        b: int [edges], the other node.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    if not len(a):
        return labels
    count = int(labels.max(initial=-1)) + 1
    more = max(0, int(max(a.max(), b.max())) + 1 - len(labels))
    labels, size = np.concatenate([labels, np.arange(count, count + more, dtype=np.int32)]), count + more
    graph = coo_array((np.ones(len(a), np.int8), (labels[a], labels[b])), shape=(size, size))
    return np.asarray(connected_components(graph, directed=False)[1][labels], np.int32)
