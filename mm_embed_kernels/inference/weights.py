"""Weight files of models: their hash, and the error for a package that is not installed."""

from __future__ import annotations

from pathlib import Path

from mm_embed_kernels.errors import UserError
from mm_embed_kernels.identity import weights_hash


def installed_hash(what: str, files: tuple[Path, ...]) -> str:
    """Return the hash over a model's weight files.

    Args:
        what: the model, for the message.
        files: in the order of the hash.

    Raises:
        UserError: when a file is missing.
    """
    missing = [path for path in files if not path.is_file()]
    if missing:
        raise UserError(f"{what}: weight file {missing[0]} is missing; run `make install` or `mm doctor`")
    return weights_hash(files)


def missing_package(name: str, package: str) -> UserError:
    """Return the error of an embedder whose package is not installed."""
    return UserError(
        f"embedder {name} needs the package {package}, which is not installed; run `make install`"
    )
