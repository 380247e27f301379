"""Page and JSON Schema of the dataset spec, from its pydantic model and the registry of rules.

python docs/reference_pages/spec.py writes docs/reference/dataset.schema.json, which editors read.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

FILE = Path(__file__).parents[1] / "reference" / "dataset.schema.json"
if __name__ == "__main__":
    sys.path[0] = str(FILE.parents[2])
    sys.path.insert(0, str(FILE.parents[1]))

from mm_assets.spec_drafts.json_schema import text  # noqa: E402
from mm_embed_kernels.spec.dataset_spec import DatasetSpec  # noqa: E402
from reference_pages.markdown import code, generated_page, sentence, write_table  # noqa: E402


def page() -> str:
    """Return the page: a table of keys for each part of a spec."""
    whole = DatasetSpec.model_json_schema(by_alias=True)
    parts = [
        "A spec is one YAML file. Paths in it are relative to its folder. Unknown keys are refused. The "
        "rules and their parameters are listed under [Rules](rules.md).",
        "Editors check a spec, and complete its keys, with [dataset.schema.json](dataset.schema.json). The"
        " first line of the spec names it, by path or URL; `mm init` writes both:",
        "```yaml\n# yaml-language-server: $schema=.dataset.schema.json\n```",
        "## The spec",
        _keys(whole, whole),
    ]
    for name, part in sorted(whole["$defs"].items(), key=lambda item: _order(whole, item[0])):
        parts += [f"## {name}", sentence(part.get("description", "")), _keys(part, whole)]
    return generated_page(
        "Dataset spec", "the pydantic model `mm_embed_kernels.spec.dataset_spec.DatasetSpec`", *parts
    )


def _order(whole: dict[str, Any], name: str) -> int:
    """Return the first place where a part is mentioned, so that parts come in the order of their keys."""
    return json.dumps(whole["properties"]).find(f'/{name}"') % (1 << 30)


def _keys(part: dict[str, Any], whole: dict[str, Any]) -> str:
    required = part.get("required", [])
    rows = [
        (
            code(name),
            _kind(item, whole),
            "required" if name in required else code(_default(item)),
            sentence(item.get("description", "")) + _bounds(item),
        )
        for name, item in part["properties"].items()
    ]
    return write_table(("key", "value", "default", "meaning"), rows)


def _default(item: dict[str, Any]) -> str:
    value = item.get("default")
    if value in (None, "", [], {}) or isinstance(value, dict):
        return ""
    return json.dumps(value, ensure_ascii=False) if not isinstance(value, str) else value


def _bounds(item: dict[str, Any]) -> str:
    shown = [
        f"{sign} {item[key]}"
        for key, sign in (("minimum", ">="), ("exclusiveMinimum", ">"), ("maximum", "<="))
        if key in item
    ]
    return f" ({', '.join(shown)})" if shown else ""


def _kind(item: dict[str, Any], whole: dict[str, Any]) -> str:
    if "$ref" in item:
        name = item["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "anyOf" in item:
        return " or ".join(dict.fromkeys(_kind(each, whole) for each in item["anyOf"]))
    if "enum" in item:
        return ", ".join(code(value) for value in item["enum"])
    if "const" in item:
        return code(item["const"])
    if item.get("type") == "array":
        return f"list of {_kind(item.get('items', {}), whole)}"
    if item.get("type") == "object":
        values = item.get("additionalProperties")
        return f"mapping to {_kind(values, whole)}" if isinstance(values, dict) else "mapping"
    return item.get("type", "any")


if __name__ == "__main__":
    FILE.write_text(text(), "utf-8")
