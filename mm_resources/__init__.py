"""Stores, compute and Dagster resources. `FeatureStore` is the entry point for training code."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mm_resources.retrieval.feature_store import FeatureStore

__all__ = ["FeatureStore"]


def __getattr__(name: str) -> Any:  # lazy: importing the package must not load lancedb
    if name == "FeatureStore":
        from mm_resources.retrieval.feature_store import FeatureStore

        return FeatureStore
    raise AttributeError(name)
