"""Names and URIs of drafted sources."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any


def relative_uri(folder: Path, base: Path) -> str:
    """Return the path of a folder, relative to the folder of the spec if it is below that, else absolute."""
    full = str(folder.absolute())
    inside = full == str(base) or full.startswith(f"{base}/")
    return os.path.relpath(full, base) if inside else full


def join_uri(root: str, name: str) -> str:
    """Join a root (``.`` for the spec's own folder) and a key below it."""
    return name if root == "." else f"{root}/{name}"


def clean_name(path: Path) -> str:
    """Return a valid dataset or source name for a path, of at most 31 characters."""
    cleaned = re.sub(r"[^A-Za-z0-9_-]+", "-", str(path.name if path.is_dir() else path)).strip("-_")
    return (cleaned or "dataset")[:31]


def number_names(sources: list[dict[str, Any]]) -> None:
    """Make the names of sources unique, in place: each repeated name gets a number."""
    taken: set[str] = set()
    for source in sources:
        name, number = source["name"], 2
        while source["name"] in taken:
            source["name"], number = f"{name}-{number}", number + 1
        taken.add(source["name"])
