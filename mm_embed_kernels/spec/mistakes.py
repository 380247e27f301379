"""Mistakes of a spec in one line, in its own terms: the line, the key, the cause, and what may be meant."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from typing import Any

import yaml
from pydantic import ValidationError
from pydantic_core import ErrorDetails

# Mistakes that are named, and characters of one and of a key in it.
_MISTAKES, _MISTAKE, _KEY = 10, 400, 80
# Wordings of pydantic's, and those of a spec.
_WORDINGS = (
    (r"^Field required$", "is required"),
    (r"^Input should be a valid dictionary.*", "must be a mapping, `key: value`"),
    (r"^Input should be a valid (list|tuple)$", "must be a list"),
    (r"^Input should be a valid string$", "must be a text (string); quote it"),
    (r"^Input should be a valid boolean.*", "must be true or false (boolean)"),
    (r"^Input should be a valid (integer|number).*", r"must be a number (\1)"),
    (r"^Input should be a valid dictionary or instance of .*", "must be a mapping, `key: value`"),
    (r"^String should ", "must "),
    (r"^Input should be ", "must be "),
    (r"^List should have at least (\d+) item.*", r"needs at least \1 entry"),
)
Path = tuple[str | int, ...]


def describe_mistakes(error: ValidationError, schema: Mapping[str, Any], text: str = "") -> str:
    """Return the first of pydantic's errors in one line, and how many more there are.

    Args:
        schema: JSON Schema of the model, for the keys that there are.
        text: the YAML, whose lines are named; "" for a spec that has none.
    """
    found = error.errors(include_url=False, include_input=False)
    lines = _lines(text)
    named = [_mistake(each, schema, lines)[:_MISTAKE] for each in found[:_MISTAKES]]
    more = [f"and {len(found) - _MISTAKES:,} more mistakes"] if len(found) > _MISTAKES else []
    return "; ".join([*named, *more])


def _mistake(found: ErrorDetails, schema: Mapping[str, Any], lines: Mapping[Path, int]) -> str:
    """Return line, field and cause of one of pydantic's errors."""
    loc = found["loc"]
    known = next((loc[:size] for size in range(len(loc), -1, -1) if loc[:size] in lines), None)
    line = f" (line {lines[known]})" if known else ""
    where = (".".join(str(part)[:_KEY] for part in loc[:_KEY]) or "spec") + line
    if found["type"] == "extra_forbidden":
        return f"{where}: there is no such key{_near(str(loc[-1])[:_KEY], schema, loc[:-1])}"
    # Pydantic prefixes the message of a validator; the error itself has the bare one.
    cause = str(found["ctx"]["error"]) if found["type"] == "value_error" else found["msg"]
    for theirs, ours in _WORDINGS:
        cause = re.sub(theirs, ours, cause)
    return f"{where}: {cause}"


def _near(key: str, schema: Mapping[str, Any], place: tuple[str | int, ...]) -> str:
    """Return the key that is meant, of the same part of the spec or of another; else the keys of the part."""
    part = _part(schema, place)
    here = list(part.get("properties", ()))
    if near := difflib.get_close_matches(key, here, 1, 0.6):
        return f"; did you mean {near[0]!r}?"
    for name, other in _parts(schema):
        if near := difflib.get_close_matches(key, list(other.get("properties", ())), 1, 0.8):
            return f"; did you mean {near[0]!r}, a key of {name}?"
    return f"; the keys here are: {', '.join(here)}" if here else ""


def _part(schema: Mapping[str, Any], place: tuple[str | int, ...]) -> Mapping[str, Any]:
    """Return the JSON Schema of the part of a spec at a place; empty where there is none."""
    part: Mapping[str, Any] = schema
    for step in place:
        part = _resolve(schema, part)
        if isinstance(step, int):
            part = part.get("items", {})
        else:
            part = part.get("properties", {}).get(step) or part.get("additionalProperties") or {}
        if not isinstance(part, Mapping):
            return {}
    return _resolve(schema, part)


def _resolve(schema: Mapping[str, Any], part: Mapping[str, Any]) -> Mapping[str, Any]:
    """Follow a reference to a part, which may stand among alternatives such as null."""
    for each in (part, *part.get("anyOf", ()), *part.get("allOf", ())):
        if "$ref" in each:
            found: Mapping[str, Any] = schema["$defs"][each["$ref"].rpartition("/")[2]]
            return found
    return part


def _parts(schema: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the parts of a spec by the key that holds them, the spec itself first."""
    yield "the spec", schema
    for owner in (schema, *schema["$defs"].values()):
        for key, item in owner.get("properties", {}).items():
            part = _resolve(schema, item.get("items", item) if isinstance(item.get("items"), dict) else item)
            if part is not item and "properties" in part:
                yield f"`{key}`", part


def _lines(text: str) -> dict[Path, int]:
    """Return the line of each key and entry of a valid YAML text, below the attributes of a component."""
    found: dict[Path, int] = {}
    if not text:
        return found
    root = yaml.compose(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    pairs = {key.value: value for key, value in root.value} if isinstance(root, yaml.MappingNode) else {}
    if "attributes" in pairs and "type" in pairs:
        root = pairs["attributes"]
    stack: list[tuple[Path, Any]] = [((), root)]
    seen: set[int] = set()
    while stack:
        path, node = stack.pop()
        if id(node) in seen:  # of an alias
            continue
        seen.add(id(node))
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                found[*path, str(key.value)] = key.start_mark.line + 1
                stack.append(((*path, str(key.value)), value))
        elif isinstance(node, yaml.SequenceNode):
            for number, value in enumerate(node.value):
                found[*path, number] = value.start_mark.line + 1
                stack.append(((*path, number), value))
    return found
