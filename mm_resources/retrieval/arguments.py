"""Checks of the arguments of the public API, made before a table is opened; each mistake is one line."""

from __future__ import annotations

import operator
from collections.abc import Collection
from typing import Any

import numpy as np

from mm_embed_kernels.errors import UserError, unknown_choice

_LARGEST = 2**63 - 1


def require_text(name: str, value: object, example: str) -> str:
    """Return an argument that must be a text.

    Raises:
        UserError: for anything else, and for an empty text.
    """
    if not isinstance(value, str) or not value:
        raise UserError(f"{name} {value!r} is no name; give a text such as {example!r}")
    return value


def require_texts(name: str, value: object, example: str) -> list[str]:
    """Return an argument that must be a text or several, as a list that has each once.

    Raises:
        UserError: for anything else, and for an empty list.
    """
    given = list(value) if isinstance(value, list | tuple) else [value]
    if not given:
        raise UserError(f"{name} is an empty list; give at least one, such as {example!r}")
    return list(dict.fromkeys(require_text(name, each, example) for each in given))


def require_number(name: str, value: Any, least: int, most: int = _LARGEST) -> int:
    """Return an argument that must be an integer from `least` to `most`.

    Raises:
        UserError: for any other one, and for anything else (True and 1.0 are no integers here).
    """
    try:
        number = operator.index(value)
    except TypeError:
        number = least - 1
    if isinstance(value, bool | np.bool_) or number < least:
        raise UserError(f"{name} is {value!r}; give an integer of at least {least}")
    if number > most:
        raise UserError(f"{name} is {value!r}; give an integer of at most {most:,}")
    return number


def require_flag(name: str, value: object) -> bool:
    """Return an argument that must be True or False.

    Raises:
        UserError: for anything else.
    """
    if not isinstance(value, bool | np.bool_):
        raise UserError(f"{name} is {value!r}; give True or False")
    return bool(value)


def require_choice(name: str, value: object, choices: Collection[str]) -> str:
    """Return an argument that must be one of some texts.

    Raises:
        UserError: naming the choices.
    """
    if not isinstance(value, str) or value not in choices:
        raise unknown_choice(name, value if isinstance(value, str) else repr(value), choices)
    return value
