"""The code of a confined process: which files it may read, and how it finds modules among them.

The folders of an interpreter contain nothing but code. Any other folder of the import path, such as a
project's, may contain data, a store, or a home beside the code: of these only modules and packages are
readable. Landlock cannot let a folder be listed without those below, so that such folders leave the import
path, and a finder knows what they contain.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import mimetypes
import os
import re
import site
import sys
from collections.abc import Iterable, Iterator, Sequence
from importlib.metadata import Distribution, DistributionFinder
from pathlib import Path
from types import ModuleType

from mm_embed_kernels.sandbox.main_module import main_path

# What libraries of C read when they start: the loader's cache, the machine's cores and memory, times.
_SYSTEM = (
    "/lib",
    "/lib64",
    "/usr/lib",
    "/usr/lib64",
    "/usr/local/lib",
    "/usr/share/zoneinfo",
    "/etc/ld.so.cache",
    "/etc/localtime",
    "/dev/null",
    "/dev/zero",
    "/dev/urandom",
    "/proc/self",
    "/proc/cpuinfo",
    "/proc/meminfo",
    "/proc/stat",
    "/proc/sys/vm/overcommit_memory",
    "/sys/devices/system/cpu",
    "/sys/devices/system/node",
    "/sys/kernel/mm/transparent_hugepage",
    *map(str, mimetypes.knownfiles),
)
_SUFFIXES = tuple(importlib.machinery.all_suffixes())
_METADATA = re.compile(r"(?P<name>.+?)(-.*)?\.(dist-info|egg-info)")


class CodeFinder(DistributionFinder):
    """Finds top-level modules, and metadata of packages, that were listed beforehand.

    Args:
        folders: of the import path.
    """

    def __init__(self, folders: Iterable[str]) -> None:
        self._modules: dict[str, Path] = {}
        self._metadata: list[Path] = []
        for folder in folders:
            for path in _code_in(folder):
                if _METADATA.fullmatch(path.name):
                    self._metadata.append(path)
                else:
                    self._modules.setdefault(path.name.split(".")[0], path)

    @property
    def paths(self) -> list[Path]:
        return [*self._modules.values(), *self._metadata]

    def find_spec(
        self,
        name: str,
        path: Sequence[str] | None = None,
        target: ModuleType | None = None,  # noqa: ARG002 - of the protocol
    ) -> importlib.machinery.ModuleSpec | None:
        found = self._modules.get(name)
        if path is not None or found is None:
            return None
        if not found.is_dir():
            return importlib.util.spec_from_file_location(name, found)
        if (found / "__init__.py").exists():
            return importlib.util.spec_from_file_location(
                name, found / "__init__.py", submodule_search_locations=[str(found)]
            )
        namespace = importlib.machinery.ModuleSpec(name, None, is_package=True)
        namespace.submodule_search_locations = [str(found)]
        return namespace

    def find_distributions(
        self, context: DistributionFinder.Context = DistributionFinder.Context()
    ) -> Iterator[Distribution]:
        for path in self._metadata:
            named = _METADATA.fullmatch(path.name)
            if context.name is None or (named and _fold_name(named["name"]) == _fold_name(context.name)):
                yield Distribution.at(path)


def limit_import_path() -> list[Path]:
    """Replace folders of the import path that may contain more than code; return what may be read."""
    installed = _installed_folders()
    below = tuple(os.path.join(os.path.realpath(folder), "") for folder in installed)

    def is_installed(path: str) -> bool:
        return os.path.join(os.path.realpath(path), "").startswith(below)

    first = next((i for i, entry in enumerate(sys.path) if is_installed(entry)), len(sys.path))
    mixed: list[list[str]] = [[], []]  # in front of the interpreter's own folders, and behind
    for i, entry in enumerate(sys.path):
        if os.path.isdir(entry) and not is_installed(entry):
            mixed[i > first].append(entry)
    finders = [CodeFinder(folders) for folders in mixed]
    sys.path[:] = [entry for entry in sys.path if entry not in (*mixed[0], *mixed[1])]
    place = sys.meta_path.index(importlib.machinery.PathFinder)
    sys.meta_path[place : place + 1] = [finders[0], importlib.machinery.PathFinder, finders[1]]
    script = main_path()
    libraries = os.environ.get("LD_LIBRARY_PATH", "").split(os.pathsep)
    archives = [entry for entry in sys.path if os.path.isfile(entry)]
    named: list[str] = [
        *_SYSTEM,
        *([script] if script else []),
        *installed,
        *archives,
        *(entry for entry in libraries if entry.startswith("/")),
    ]
    loaded: list[str] = [path for path in _loaded_packages() if not is_installed(path)]
    return [*map(Path, (*named, *loaded)), *finders[0].paths, *finders[1].paths]


def _installed_folders() -> list[str]:
    """Folders of the interpreter and its packages."""
    roots = {sys.prefix, sys.base_prefix, sys.exec_prefix, sys.base_exec_prefix}
    own = [os.path.join(root, name) for root in roots for name in ("lib", "lib64", "pyvenv.cfg")]
    # Packages of the user, and of a distribution.
    packages = [entry for entry in sys.path if entry.endswith(("/site-packages", "/dist-packages"))]
    return [path for path in [*own, *packages, site.getusersitepackages()] if os.path.exists(path)]


def _loaded_packages() -> Iterator[str]:
    """Stream the code of modules that are loaded, or installed as editable."""
    for name, module in list(sys.modules.items()):
        if "." not in name:
            yield from (place for place in getattr(module, "__path__", ()) if place)
            if file := getattr(module, "__file__", None):
                yield file
        if name.startswith("__editable__"):
            yield from getattr(module, "MAPPING", {}).values()  # setuptools: name -> folder


def _code_in(folder: str) -> Iterator[Path]:
    """Stream modules, packages, and metadata of packages in a folder of the import path."""
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError:
        return
    for entry in entries:
        is_module = entry.name.endswith(_SUFFIXES) and entry.is_file()
        is_package = entry.name.isidentifier() and entry.is_dir() and _is_package(entry.path)
        if is_module or is_package or _METADATA.fullmatch(entry.name):
            yield Path(entry.path)


def _is_package(folder: str) -> bool:
    """Return whether a folder contains modules."""
    try:
        return any(name.endswith(_SUFFIXES) for name in os.listdir(folder))
    except OSError:
        return False


def _fold_name(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
