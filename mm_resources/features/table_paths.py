"""Paths of feature tables below the store's root."""

from __future__ import annotations

FOLDER = "features"


def table_path(table: str) -> str:
    """Return the path of a feature table."""
    return f"{FOLDER}/{table}.lance"


def table_at(path: str) -> str:
    """Return the name of the feature table at a path."""
    return path.removeprefix(f"{FOLDER}/").removesuffix(".lance")
