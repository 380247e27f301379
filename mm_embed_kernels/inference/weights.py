"""Weight files of models: their hash, and the folder of the installed package that contains them."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from pathlib import Path

from mm_embed_kernels.errors import UserError
from mm_embed_kernels.extras import MissingPackage
from mm_embed_kernels.identity import digest, file_hash
from mm_embed_kernels.inference.weight_sums import package_at, reinstall_remedy, require_sum


def installed_hash(what: str, files: tuple[Path, ...]) -> str:
    """Return the hash over a model's weight files, each of which is checked against its pinned sum.

    Each file is read once in a process. What computes with a model asks for its hash first, so that no other
    weights are loaded.

    Args:
        what: the model, for the message.
        files: in the order of the hash.

    Raises:
        UserError: when a file is missing, or not the pinned one.
    """
    missing = [path for path in files if not path.is_file()]
    if missing:
        raise UserError(
            f"{what}: weight file {missing[0]} is missing; {reinstall_remedy(package_at(missing[0]))}"
        )
    sums = [_file_sum(path) for path in files]
    for path, found in zip(files, sums, strict=True):
        require_sum(what, path, found)
    return digest("weights", *sums)


@cache
def _file_sum(path: Path) -> str:
    return file_hash(path)


def package_folder(what: str, module: str, package: str) -> Path:
    """Return the folder of an installed package, without importing it: it may load much, even torch.

    Args:
        what: the model, for the message.
        module: name under which the package is imported.
        package: name under which it is installed.

    Raises:
        MissingPackage: when the package is not installed.
    """
    spec = find_spec(module)
    if spec is None or spec.origin is None:
        raise MissingPackage(what, package)
    return Path(spec.origin).parent
