"""Run a program as on an installation of the core: ``python core_only.py PROGRAM [WORDS]``; ``mm`` is a program, too.

Packages that are no requirement of the core, nor of what it requires, are not found, as if they were not installed. Those
of the extras that the variable ``EXTRAS`` names are found, too.
"""

from __future__ import annotations

import importlib.machinery
import importlib.metadata
import os
import runpy
import sys
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
OWN = ("mm_assets", "mm_resources", "mm_embed_kernels")


def closure(requirements: list[str]) -> set[str]:
    """Return the names of the packages that are required, directly or not, of those that are installed here."""
    waiting = [Requirement(text) for text in requirements]
    seen: set[tuple[str, frozenset[str]]] = set()
    while waiting:
        item = waiting.pop()
        key = canonicalize_name(item.name), frozenset(item.extras)
        if key in seen:
            continue
        seen.add(key)
        try:
            required = importlib.metadata.requires(item.name) or []
        except importlib.metadata.PackageNotFoundError:
            continue
        for text in required:
            found = Requirement(text)
            if found.marker is None or any(found.marker.evaluate({"extra": e}) for e in ("", *item.extras)):
                waiting.append(found)
    return {name for name, _ in seen}


def requirements_of(extras: dict[str, list[str]], chosen: list[str]) -> list[str]:
    """Return the requirements of extras, those of the extras that they name included."""
    found = []
    for text in (text for name in chosen for text in extras[name]):
        inner = Requirement(text)
        found += requirements_of(extras, sorted(inner.extras)) if inner.name == "mm-features" else [text]
    return found


def hidden_modules() -> set[str]:
    """Return the modules of all installed packages that the core does not require."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    chosen = os.environ.get("EXTRAS", "").split()
    core = closure(project["dependencies"] + requirements_of(project["optional-dependencies"], chosen))
    if chosen:
        core.add("aisfx")  # beside the extras, see docs/how-to/install.md
    return {
        module
        for module, packages in importlib.metadata.packages_distributions().items()
        if not core & set(map(canonicalize_name, packages)) and module not in OWN
    }


class CoreFinder:
    """Finds modules as Python does, but for the hidden ones."""

    hidden: set[str]
    find_distributions = importlib.machinery.PathFinder.find_distributions

    @classmethod
    def find_spec(cls, name, path=None, target=None):  # type: ignore[no-untyped-def]
        if name.partition(".")[0] in cls.hidden:
            return None
        return importlib.machinery.PathFinder.find_spec(name, path, target)


def main() -> None:
    CoreFinder.hidden = hidden_modules()
    place = sys.meta_path.index(importlib.machinery.PathFinder)
    sys.meta_path[place] = CoreFinder  # type: ignore[call-overload]
    sys.argv = sys.argv[1:]
    if sys.argv[0] == "mm":
        from mm_assets.cli.main import main as run

        run()
    elif sys.argv[0] == "demo":
        runpy.run_module("mm_assets.demo", run_name="__main__")
    else:
        runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    main()
