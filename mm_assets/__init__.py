"""The twelve assets, their checks, jobs and automation, the `mm` command, and Dagster components."""

from __future__ import annotations

from importlib import import_module
from typing import Any

_COMPONENTS = {
    "Dataset": "mm_assets.components.dataset",
    "FeaturePlatform": "mm_assets.components.feature_platform",
}
__all__ = list(_COMPONENTS)


def __getattr__(name: str) -> Any:
    """Import a component at its first use, since components import Dagster."""
    if name in _COMPONENTS:
        return getattr(import_module(_COMPONENTS[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_COMPONENTS])
