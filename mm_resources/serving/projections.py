"""A sample of a pin's vectors in two dimensions, for the map."""

from __future__ import annotations

import importlib.util
from typing import Any

import numpy as np
import pyarrow as pa

from mm_embed_kernels import sql
from mm_embed_kernels.contracts.features import vectors_of
from mm_resources.registry.pins import Pin
from mm_resources.serving.problems import Problem
from mm_resources.serving.queries import describe_pin
from mm_resources.serving.service import Service

# Points of a map; of more rows some are chosen, the same each time.
MOST_POINTS = 5_000
METHODS = ("pca", "umap")
# Points that UMAP places in the time of an answer.
_MOST_UMAP = 2_000
_COLUMNS = (
    "feature_id",
    "sample_id",
    "key",
    "label",
    "split",
    "quality_score",
    "passed",
    "content_hash",
    "span",
)


def project(service: Service, pin: Pin, method: str) -> dict[str, Any]:
    """Return points of a pin's primary table, with what they are coloured by.

    Args:
        method: ``pca``; or ``umap``, where the package umap-learn is installed.

    Raises:
        Problem: for another method, or one that is not installed.
    """
    if method not in METHODS:
        raise Problem("bad_request", f"method {method[:80]!r} is not known; there are: {', '.join(METHODS)}")
    if method == "umap" and importlib.util.find_spec("umap") is None:
        raise Problem("bad_request", "umap is not installed; pip install umap-learn, or choose pca")
    table = pin.primary
    dataset = service.catalog.features.dataset(table.table, table.lance_version)
    chosen = _chosen_rows(table.rows, _MOST_UMAP if method == "umap" else MOST_POINTS)

    def places() -> np.ndarray[Any, Any]:
        return _unit_square(_reduce(vectors_of(dataset.take(chosen, columns=["vector"])), method))

    # Places alone are remembered: names and labels are read anew, as long as the store has them.
    points = service.remember(("map", table.table, table.lance_version, method), places)
    rows = dataset.take(chosen, columns=list(_COLUMNS))
    return {
        "x": np.round(points[:, 0], 4).tolist(),
        "y": np.round(points[:, 1], 4).tolist(),
        **{name: rows[name].to_pylist() for name in _COLUMNS if name != "passed"},
        "rule": _flags(rows),
        "pin": describe_pin(pin),
        "rows": table.rows,
        "method": method,
    }


def _chosen_rows(rows: int, most: int) -> list[int]:
    """Return the numbers of the rows of a map, in order, the same each time."""
    if rows <= most:
        return list(range(rows))
    chosen: list[int] = np.sort(np.random.default_rng(0).choice(rows, most, replace=False)).tolist()
    return chosen


def _reduce(vectors: np.ndarray[Any, Any], method: str) -> np.ndarray[Any, Any]:
    """Return vectors [n, d] in two dimensions, [n, 2]."""
    if len(vectors) < 3:
        return np.zeros((len(vectors), 2)) + np.arange(len(vectors))[:, None]
    if method == "umap":
        import umap

        return np.asarray(umap.UMAP(n_components=2, random_state=0).fit_transform(vectors))
    centered = vectors - vectors.mean(axis=0)
    # In ascending order; takes a seventh of the time of a singular value decomposition.
    _, axes = np.linalg.eigh(centered.T @ centered)
    return np.asarray(centered @ axes[:, :-3:-1])


def _unit_square(points: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Scale points to 0..1 in both dimensions."""
    if not len(points):
        return points
    low, high = points.min(axis=0), points.max(axis=0)
    return np.asarray((points - low) / np.maximum(high - low, 1e-12))


def _flags(rows: pa.Table) -> list[str]:
    """Return, for each row, the rules that it failed, of those that others have passed."""
    found = sql.fetch(
        """
WITH every AS (SELECT DISTINCT unnest(passed) AS name FROM rows)
SELECT feature_id, coalesce(string_agg(name, ', ' ORDER BY name) FILTER (NOT list_contains(passed, name)), '')
  AS flags FROM rows CROSS JOIN every GROUP BY feature_id
""",
        rows=rows.select(["feature_id", "passed"]),
    )
    flags = dict(zip(found["feature_id"].to_pylist(), found["flags"].to_pylist(), strict=True))
    return [flags.get(name) or "none" for name in rows["feature_id"].to_pylist()]
