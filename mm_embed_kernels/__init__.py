"""Pure code over Arrow batches: contracts, rules, modalities, embedders, transcribers and kernels.

Nothing here imports dagster or ray; a test runs every kernel alone, on a small Arrow table.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    __version__: str


def __getattr__(name: str) -> Any:
    """Return the version of the distribution, read when it is asked for."""
    if name == "__version__":
        from importlib.metadata import version  # of the distribution that contains the three packages

        return version("mm-features")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
