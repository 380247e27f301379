"""The parent's main module, imported in a child only where something of it is used."""

from __future__ import annotations

import multiprocessing
import multiprocessing.spawn
from typing import Any

NAMES = ("__main__", "__mp_main__")
_KEYS = ("init_main_from_name", "init_main_from_path")
_named: dict[str, Any] = {}


def describe_main() -> dict[str, Any]:
    """Return how a child finds the main module of this process, if it can."""
    found = multiprocessing.spawn.get_preparation_data("")
    return {key: found[key] for key in _KEYS if key in found}


def name_main(described: dict[str, Any]) -> None:
    """Remember the parent's main module, for `load_main`."""
    _named.update(described)


def main_path() -> str | None:
    """Return the file of the parent's main module, where it is a script."""
    return _named.get("init_main_from_path")


def load_main() -> None:
    """Import the parent's main module in its place, once, as `multiprocessing` does."""
    if not _named:
        return
    described, process = dict(_named), multiprocessing.current_process()
    _named.clear()
    # As in a child of multiprocessing: a main script that starts children of its own fails with a message.
    process._inheriting = True  # type: ignore[attr-defined]
    try:
        multiprocessing.spawn.prepare(described)
    finally:
        del process._inheriting  # type: ignore[attr-defined]
