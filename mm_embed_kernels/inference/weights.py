"""TODO."""

from __future__ import annotations

from pathlib import Path

from mm_embed_kernels.errors import UserError
from mm_embed_kernels.identity import weights_hash


def installed_hash(what: str, files: tuple[Path, ...]) -> str:
    """Hash over a model's weight files.

    Raises:
        UserError: naming the file that is missing.
    """
    missing = [path for path in files if not path.is_file()]
    if missing:
        raise UserError(f"{what}: weight file {missing[0]} is missing; run `make install` or `mm doctor`")
    return weights_hash(files)


def unavailable(name: str, package: str) -> UserError:
    return UserError(
        f"embedder {name} needs the package {package}, which is not installed; run `make install`"
    )
