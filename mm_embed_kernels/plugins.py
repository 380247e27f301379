"""Discovery of one-file plug-ins.

A modality, a curation rule, an embedder, a transcriber or a source kind is one module that defines one or
more concrete subclasses of a base class. The modules of the base's own package are discovered by walking it;
a user's package adds its own through an entry point in the group ``mm.<kind>``, which names a class or a
module.
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
    """No plug-in has the name; the message lists those that exist."""


def _classes(module: ModuleType, base: Any) -> Iterator[Any]:
    """Stream the concrete subclasses of `base` that a module defines and names."""
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
    """Return every concrete subclass of `base` by its ``name``, sorted by name.

    Args:
        package: dotted name of the package whose modules are walked.
        kind: of plug-in; the entry-point group is ``mm.<kind>``.
        base: abstract base class; subclasses without a ``name`` are skipped.

    Raises:
        ValueError: when two classes claim one name.
    """
    plugins: dict[str, Any] = {}
    parent = importlib.import_module(package)
    modules = [
        importlib.import_module(f"{package}.{info.name}") for info in pkgutil.iter_modules(parent.__path__)
    ]
    candidates = [item for module in modules for item in _classes(module, base)]
    for entry in entry_points(group=f"mm.{kind}"):
        loaded = entry.load()
        candidates += list(_classes(loaded, base)) if isinstance(loaded, ModuleType) else [loaded]
    for item in candidates:
        if plugins.setdefault(item.name, item) is not item:
            raise ValueError(f"two {kind} are named {item.name!r}: {plugins[item.name]!r} and {item!r}")
    return dict(sorted(plugins.items()))


def pick(plugins: dict[str, Any], kind: str, name: str) -> Any:
    """Return the plug-in with a name.

    Raises:
        UnknownPlugin: when there is none.
    """
    if name not in plugins:
        raise UnknownPlugin(f"no {kind} is named {name!r}; there are: {', '.join(plugins) or 'none'}")
    return plugins[name]
