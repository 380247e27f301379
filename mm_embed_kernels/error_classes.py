"""Error classes: the registry of all causes that a failure may name.

`mm_embed_kernels.error_class_entries` holds the built-in ones. A plug-in declares its own at the top of the
module that raises them, so that each process that imports it (driver, Ray worker, sandboxed child) has them:

    from mm_embed_kernels.error_classes import declare
    from mm_embed_kernels.errors import SampleError

    BAD_LETTER = declare(
        "bad_letter",
        meaning="The sequence holds a letter other than A, C, G and T.",
        action="Correct the file and register a new version.",
    )

    raise SampleError(BAD_LETTER, f"{letter!r} at position {position}")

A name that is not declared cannot be raised or recorded. Stored names are read and copied as they are.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from http import HTTPStatus

from mm_embed_kernels import error_class_entries as entries

# Subject of the classes that plug-ins have declared.
PLUGINS = "plug-ins"
_NAME = re.compile(r"[a-z][a-z0-9_]*")
_HTTP = re.compile(r"http_(\d{1,3})")


@dataclass(frozen=True)
class ErrorClass:
    """One cause of failures.

    Args:
        name: the stable word that is stored with each failure.
        meaning: what is wrong, as a sentence.
        transient: True when the cause may be gone in seconds; a run computes the sample again after a pause.
        action: what a person does about it.
    """

    name: str
    meaning: str
    transient: bool
    action: str


_BUILT_IN = {
    subject: {
        name: ErrorClass(name, meaning, name in entries.TRANSIENT, action)
        for name, (meaning, action) in group.items()
    }
    for subject, group in entries.SUBJECTS.items()
}
_declared: dict[str, ErrorClass] = {}
_by_name: dict[str, ErrorClass] = {name: item for group in _BUILT_IN.values() for name, item in group.items()}
_STATUS = _by_name.pop(entries.HTTP)


def declare(name: str, meaning: str, action: str, transient: bool = False) -> str:
    """Add the error class of a plug-in to the registry of this process.

    Args:
        name: lower-case letters, digits and underscores; it is stored with each failure and never changes.
        meaning: what is wrong, as a sentence.
        action: what a person does about it, with the command where there is one.
        transient: True when the cause may be gone in seconds; a run computes the sample again after a pause,
            if the `SampleError` is retryable.

    Returns:
        The name.

    Raises:
        ValueError: when the name is malformed or names another class, or a text is missing.
    """
    if not _NAME.fullmatch(name) or _HTTP.fullmatch(name):
        raise ValueError(f"error class {name!r}: a name has lower-case letters, digits and underscores")
    if not meaning.strip() or not action.strip():
        raise ValueError(f"error class {name!r} needs a meaning and an action")
    item = ErrorClass(name, meaning, transient, action)
    if _by_name.setdefault(name, item) != item:
        raise ValueError(f"error class {name!r} is declared already: {_by_name[name].meaning}")
    if not any(name in group for group in _BUILT_IN.values()):
        _declared[name] = item
    return name


def lookup(name: str) -> ErrorClass | None:
    """Return the class of that name; None for one that an older version or an absent plug-in has stored."""
    status = _HTTP.fullmatch(name)
    return _http_class(name, int(status[1])) if status else _by_name.get(name)


def require_declared(name: str) -> None:
    """Check that a class is in the registry.

    Raises:
        ValueError: with the nearest name that is.
    """
    if lookup(name) is not None:
        return
    near = get_close_matches(name, [*_by_name, entries.HTTP], n=1, cutoff=0.0)[0]
    raise ValueError(
        f"error class {name!r} is not declared; the nearest is {near!r}, `mm failures --classes` lists all,"
        " and a plug-in adds its own by mm_embed_kernels.error_classes.declare"
    )


def by_subject() -> Mapping[str, list[ErrorClass]]:
    """Return all classes by subject; http_NNN is every status, and those of imported plug-ins come last."""
    found = {subject: list(group.values()) for subject, group in _BUILT_IN.items()}
    return {**found, **({PLUGINS: list(_declared.values())} if _declared else {})}


def error_classes() -> list[ErrorClass]:
    """Return all classes in the order of `by_subject`."""
    return [item for group in by_subject().values() for item in group]


def transient_names() -> tuple[str, ...]:
    """Return the names of the transient classes."""
    return tuple(item.name for item in error_classes() if item.transient)


def _http_class(name: str, status: int) -> ErrorClass:
    """Return the class of one status, with its phrase (RFC 9110) where it has one."""
    try:
        answer = f"{status} ({HTTPStatus(status).phrase})"
    except ValueError:
        answer = str(status)
    action = _STATUS.action.replace(entries.HTTP, name)
    return replace(
        _STATUS, name=name, meaning=f"The server answers with HTTP status {answer}.", action=action
    )
