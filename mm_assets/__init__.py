"""The twelve assets, their checks, jobs and automation, the `mm` command, and Dagster components."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    __version__: str

_COMPONENTS = {
    "Dataset": "mm_assets.components.dataset",
    "FeaturePlatform": "mm_assets.components.feature_platform",
}
__all__ = list(_COMPONENTS)


def __getattr__(name: str) -> Any:
    """Import a component, or the version, at its first use: components import Dagster."""
    if name in _COMPONENTS:
        return getattr(import_module(_COMPONENTS[name]), name)
    if name == "__version__":
        from mm_embed_kernels import __version__  # lazy there as well

        return __version__
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_COMPONENTS])
