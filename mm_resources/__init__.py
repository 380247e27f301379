"""Stores, compute and Dagster resources. `__all__` is the public API for training code and applications.

    from mm_resources import FeatureStore

Everything else is internal, and may change without notice.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mm_embed_kernels.errors import SampleError, UserError
    from mm_resources.exports.export import export
    from mm_resources.features.removed_rows import RemovedRows
    from mm_resources.features.table_metadata import register_embedding_function
    from mm_resources.registry.pins import Pin, PinnedTable
    from mm_resources.retrieval.feature_reader import FeatureReader
    from mm_resources.retrieval.feature_store import FeatureStore
    from mm_resources.retrieval.loader import Loader
    from mm_resources.retrieval.training_set import TrainingSet
    from mm_resources.storage.file_hashes import DamagedFiles

    __version__: str

# Loaded when they are asked for: importing the package loads neither pyarrow nor lancedb.
_MODULES = {
    "FeatureReader": "mm_resources.retrieval.feature_reader",
    "FeatureStore": "mm_resources.retrieval.feature_store",
    "TrainingSet": "mm_resources.retrieval.training_set",
    "Loader": "mm_resources.retrieval.loader",
    "Pin": "mm_resources.registry.pins",
    "PinnedTable": "mm_resources.registry.pins",
    "export": "mm_resources.exports.export",
    "SampleError": "mm_embed_kernels.errors",
    "UserError": "mm_embed_kernels.errors",
    "RemovedRows": "mm_resources.features.removed_rows",
    "DamagedFiles": "mm_resources.storage.file_hashes",
    "register_embedding_function": "mm_resources.features.table_metadata",
}
__all__ = [
    "DamagedFiles",
    "FeatureReader",
    "FeatureStore",
    "Loader",
    "Pin",
    "PinnedTable",
    "RemovedRows",
    "SampleError",
    "TrainingSet",
    "UserError",
    "__version__",
    "export",
    "register_embedding_function",
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(import_module(_MODULES[name]), name)
    if name == "__version__":
        from mm_embed_kernels import __version__  # lazy there as well

        return __version__
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
