"""Shapes of the JSON that commands print; `test_shapes.py` compares them, and the docs show them.

A word stands for a value of that type: text, int, float (also an integer), bool, time (text in ISO 8601), any.
``?`` after it: or null. A key that ends in ``?`` may be absent. The key ``NAME`` stands for any keys. A list
has the shape of its elements.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime
from typing import Any

_TYPES: dict[str, tuple[type, ...]] = {"text": (str,), "int": (int,), "float": (int, float), "bool": (bool,)}
_NAME = "NAME"
SHAPES: dict[str, Any] = {}


def mismatches(value: Any, shape: Any, place: str = "") -> Iterator[str]:
    """Yield a line for each place where a value has another shape."""
    if isinstance(shape, dict) and isinstance(value, dict):
        if set(shape) == {_NAME}:
            for key, each in value.items():
                yield from mismatches(each, shape[_NAME], f"{place}.{key}")
            return
        required = {key for key in shape if not key.endswith("?")}
        optional = {key[:-1] for key in shape if key.endswith("?")}
        yield from (f"{place}.{key} is missing" for key in sorted(required - set(value)))
        yield from (f"{place}.{key} is new" for key in sorted(set(value) - required - optional))
        for key in sorted(set(value) & (required | optional)):
            yield from mismatches(value[key], shape.get(key, shape.get(f"{key}?")), f"{place}.{key}")
    elif isinstance(shape, list) and isinstance(value, list):
        for number, each in enumerate(value):
            yield from mismatches(each, shape[0], f"{place}[{number}]") if shape else ()
    elif not (isinstance(shape, str) and _is(value, shape)):
        yield f"{place} is {type(value).__name__}, not {shape}"


def _is(value: Any, kind: str) -> bool:
    if value is None:
        return kind.endswith("?")
    name = kind.rstrip("?")
    if name == "any":
        return True
    if name == "time":
        return isinstance(value, str) and bool(re.match(r"\d{4}-", value)) and bool(datetime.fromisoformat(value))
    return isinstance(value, _TYPES[name]) and (name == "bool" or not isinstance(value, bool))
