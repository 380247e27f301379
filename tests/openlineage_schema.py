"""JSON Schemas of OpenLineage's events, from the classes that its client generates from the published schemas.

The classes check nothing themselves: a number where a text is due, or a facet of a job on a dataset, would be sent.
"""

from __future__ import annotations

import importlib
import pkgutil
import types
import typing
from enum import Enum
from typing import Any

import attr
import jsonschema_rs
from openlineage.client import event_v2, generated

# As the published schemas have it, what the classes leave to their validators.
_FORMATS = {
    "eventTime": "date-time",
    "runId": "uuid",
    **dict.fromkeys(("uri", "producer", "schemaURL", "_producer", "_schemaURL"), "uri"),
}
_PLAIN = {str: "string", int: "integer", float: "number", bool: "boolean"}


def _facets() -> dict[str, type]:
    """Return the class of each facet by its `_schemaURL`."""
    found: dict[str, type] = {}
    item: Any
    for module in pkgutil.iter_modules(generated.__path__):
        content = vars(importlib.import_module(f"{generated.__name__}.{module.name}"))
        for item in content.values():
            if attr.has(item) and any(base.__name__ == "BaseFacet" for base in item.__mro__[1:]):
                found[item._get_schema()] = item
    return found


def _of(kind: Any) -> dict[str, Any]:
    if kind in _PLAIN:
        return {"type": _PLAIN[kind]}
    if isinstance(kind, type) and issubclass(kind, Enum):
        return {"enum": [item.value for item in kind]}
    if attr.has(kind):
        return {"$ref": f"#/$defs/{kind.__name__}"}
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return {"anyOf": [_of(item) for item in arguments if item is not type(None)]}
    if origin is list:
        return {"type": "array", "items": _of(arguments[0])}
    if origin is dict:
        return {"type": "object", "additionalProperties": _of(arguments[1])}
    return {}


def _object(kind: type) -> dict[str, Any]:
    """Return the schema of a class: its fields and no other."""
    hints = typing.get_type_hints(kind)
    fields = {item.name: item for item in attr.fields(kind)}
    properties = {
        name: _of(hints[name]) | ({"format": _FORMATS[name]} if name in _FORMATS else {}) for name in fields
    }
    required = [name for name, item in fields.items() if item.default is attr.NOTHING or not item.init]
    return {
        "type": "object",
        "properties": {name: item for name, item in properties.items() if name != "_deleted"},
        "required": [name for name in required if name != "_deleted"],
        "additionalProperties": False,
    }


def _definitions(kinds: list[type]) -> dict[str, Any]:
    """Return the schemas of classes, and of all that they name."""
    found: dict[str, Any] = {}
    while kinds:
        kind = kinds.pop()
        if kind.__name__ in found:
            continue
        found[kind.__name__] = _object(kind)
        text = repr(found[kind.__name__])
        module = vars(importlib.import_module(kind.__module__))
        kinds += [item for name, item in module.items() if attr.has(item) and f"#/$defs/{name}'" in text]
    return found


def mistakes(event: dict[str, Any]) -> list[str]:
    """Return what is wrong in a run event, and in each of its facets."""
    return [*_mistakes("event", event_v2.RunEvent, event), *_mistakes_of_facets(event)]


def _mistakes(place: str, kind: type, value: Any) -> list[str]:
    definitions = _definitions([kind])
    if kind is event_v2.RunEvent:
        # Facets are looked at by their own schemas.
        for holder in definitions.values():
            for name in holder["properties"]:
                if name.lower().endswith("facets"):
                    holder["properties"][name] = {"type": "object"}
    schema = {"$ref": f"#/$defs/{kind.__name__}", "$defs": definitions}
    validator = jsonschema_rs.Draft202012Validator(schema, validate_formats=True)
    return [f"{place}{error.instance_path}: {error.message}" for error in validator.iter_errors(value)]


_ENDINGS = {
    "inputs.facets": "DatasetFacet",
    "outputs.facets": "DatasetFacet",
    "inputs.inputFacets": "InputDatasetFacet",
    "outputs.outputFacets": "OutputDatasetFacet",
    "run.facets": "RunFacet",
    "job.facets": "JobFacet",
}


def _mistakes_of_facets(event: dict[str, Any]) -> list[str]:
    known, found = _facets(), []
    for place, base in _ENDINGS.items():
        holder, name = place.split(".")
        holders = event[holder] if isinstance(event[holder], list) else [event[holder]]
        for facets in (item.get(name, {}) for item in holders):
            for key, facet in facets.items():
                kind = known.get(facet.get("_schemaURL", ""))
                if kind is None or base not in {item.__name__ for item in kind.__mro__}:
                    found.append(f"{place}.{key}: {facet.get('_schemaURL')} is no {base}")
                else:
                    found += _mistakes(f"{place}.{key}", kind, facet)
    return found
