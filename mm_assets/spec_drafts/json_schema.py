"""JSON Schema of the dataset spec, which editors read, from its pydantic model and the installed rules."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from mm_embed_kernels.rules import rules
from mm_embed_kernels.spec.dataset_spec import DatasetSpec

_ACTIONS = ["drop", "flag", "off", False]


def schema() -> dict[str, Any]:
    """Return the JSON Schema of a spec, with the parameters of the installed rules.

    Beside what the model says, it admits what the model's validators read: numbers as versions, a bare `off`
    (false, in YAML), and a source of tracks without a `uri`.
    """
    whole = DatasetSpec.model_json_schema(by_alias=True)
    parts = whole["$defs"]
    whole["properties"]["version"]["type"] = ["string", "integer"]
    whole["properties"]["parent"]["anyOf"].insert(0, {"type": "integer"})
    parts["SourceSpec"]["required"].remove("uri")
    parts["SourceSpec"]["anyOf"] = [{"required": ["uri"]}, {"required": ["track_of"]}]
    parts["Watch"]["properties"]["sources"]["enum"].append(False)
    parts["Curation"]["properties"]["rules"]["properties"] = {
        name: _rule_schema(rule) for name, rule in rules().items()
    }
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **whole, "title": "mm dataset spec"}


def _rule_schema(rule: Any) -> dict[str, Any]:
    parameters = {
        field.name: _parameter(field.default)
        for field in dataclasses.fields(rule)
        if field.init and not field.name.startswith("_")
    }
    return {
        "type": "object",
        "description": " ".join((rule.__doc__ or "").partition("\n\n")[0].split()),
        "properties": {**parameters, "action": {"enum": _ACTIONS, "default": rule.action}},
        "additionalProperties": False,
    }


def _parameter(default: Any) -> dict[str, Any]:
    if isinstance(default, bool):
        return {"type": "boolean", "default": default}
    if isinstance(default, (int, float)):
        return {"type": "number", "default": default}
    return {"default": default} if isinstance(default, str) else {}


def text() -> str:
    """Return the JSON Schema as the file contains it."""
    return json.dumps(schema(), indent=1, ensure_ascii=False) + "\n"
