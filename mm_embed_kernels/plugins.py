"""Discovery of one-file plug-ins.

A modality, a curation rule, an embedder or a source kind is one module that defines one or more concrete subclasses of
a base class. The modules of the base's own package are found by walking it; a user's package adds its own through an
entry point in the group ``mm.<kind>`` (each entry point names a class or a module).
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from functools import cache
from importlib.metadata import entry_points
from types import ModuleType
from typing import Any

from mm_embed_kernels.errors import UserError


class UnknownPlugin(UserError):
    """No plug-in of that name; the message lists those that exist."""


def _classes(module: ModuleType, base: Any) -> Iterator[Any]:
    for _, item in inspect.getmembers(module, inspect.isclass):
        defined_here = item.__module__ == module.__name__
        if (
            defined_here
            and issubclass(item, base)
            and not inspect.isabstract(item)
            and getattr(item, "name", None)
        ):
            yield item


@cache
def discover(package: str, kind: str, base: Any) -> dict[str, Any]:
    """Every concrete subclass of `base`, by its ``name``, sorted by name.

    Args:
        package: the dotted package whose modules are walked.
        kind: the entry-point group is ``mm.<kind>``.
        base: the abstract base; classes without a ``name`` are skipped.

    Raises:
        ValueError: when two classes claim one name.
    """
    found: dict[str, Any] = {}
    parent = importlib.import_module(package)
    modules = [
        importlib.import_module(f"{package}.{info.name}") for info in pkgutil.iter_modules(parent.__path__)
    ]
    candidates = [item for module in modules for item in _classes(module, base)]
    for entry in entry_points(group=f"mm.{kind}"):
        loaded = entry.load()
        candidates += list(_classes(loaded, base)) if isinstance(loaded, ModuleType) else [loaded]
    for item in candidates:
        if found.setdefault(item.name, item) is not item:
            raise ValueError(f"two {kind} are named {item.name!r}: {found[item.name]!r} and {item!r}")
    return dict(sorted(found.items()))


def pick(found: dict[str, Any], kind: str, name: str) -> Any:
    """The plug-in called `name`, or `UnknownPlugin` naming the choices."""
    if name not in found:
        raise UnknownPlugin(f"no {kind} is named {name!r}; there are: {', '.join(found) or 'none'}")
    return found[name]
