"""Each block of the docs fits the code: commands parse, specs are valid, Python compiles and its imports exist.

`test_sessions.py` runs them.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import json
import os
import tomllib
from typing import Any

import jsonschema
import pytest
import typer.main
import yaml

from mm_assets.cli.main import app
from mm_embed_kernels.spec.dataset_spec import COMPONENT, DatasetSpec, parse_spec
from mm_resources.costs.prices import load_prices
from tests.docs.blocks import DOCS, ROOT, Block, blocks, mm_words, pages

BLOCKS = [block for page in pages() for block in blocks(page)]
LANGUAGES = {"bash", "console", "yaml", "python", "json", "toml", "csv", "text"}
# What a part of a spec is completed by.
_REST = {
    "name": "birds",
    "version": "v1",
    "sources": [{"name": "photos", "modality": "image", "uri": "photos/**"}],
}
# Files of YAML beside specs.
_OTHER_YAML = {
    "prices.yaml",
    "workspace.yaml",
    "dagster.yaml",
    "run configuration",
    "studio/defs/platform/defs.yaml",
}
# Modules of a reader's own, in examples.
_OWN = {"my_project", "my_package", "studio"}


def of(*languages: str) -> list[Block]:
    return [block for block in BLOCKS if block.language in languages]


def test_each_block_says_its_language() -> None:
    assert [str(block) for block in BLOCKS if block.language not in LANGUAGES] == []


@pytest.mark.parametrize("block", of("bash", "console"), ids=str)
def test_commands_parse(block: Block) -> None:
    """With their options and values, by the app itself; nothing is run."""
    group: Any = typer.main.get_command(app)
    for words in (words for line in block.commands for words in mm_words(line)):
        if "--help" in words or not words:
            continue
        command = group.commands[words[0]]
        context = command.make_context(words[0], list(words[1:]))
        assert not context.args, f"{block}: {words}"


def is_spec(block: Block) -> bool:
    return block.language == "yaml" and block.title not in _OTHER_YAML


@pytest.mark.parametrize("block", [block for block in BLOCKS if is_spec(block)], ids=str)
def test_specs_are_valid(block: Block) -> None:
    """By the model and by the JSON Schema; a part of a spec is completed."""
    written = yaml.safe_load(block.text) or {}
    given = {**_REST, **(written["attributes"] if written.get("type") == COMPONENT else written)}
    spec = parse_spec(yaml.safe_dump(given, sort_keys=False), str(block))
    assert isinstance(spec, DatasetSpec)
    jsonschema.validate(given, json.loads((DOCS / "reference" / "dataset.schema.json").read_text("utf-8")))


def test_the_price_table_has_the_built_in_prices(tmp_path: Any) -> None:
    [block] = [block for block in BLOCKS if block.title == "prices.yaml"]
    path = tmp_path / "prices.yaml"
    path.write_text(block.text, "utf-8")
    assert load_prices(path) == load_prices(None)


def test_the_run_configuration_has_fields_of_the_resources() -> None:
    from mm_assets.definitions import default_resources

    [block] = [block for block in BLOCKS if block.title == "run configuration"]
    resources: dict[str, Any] = default_resources()
    for key, value in yaml.safe_load(block.text)["resources"].items():
        assert set(value["config"]) <= set(type(resources[key]).model_fields)


def test_the_platform_s_component_has_these_attributes() -> None:
    from mm_assets.components.feature_platform import FeaturePlatform

    [block] = [block for block in BLOCKS if block.title == "studio/defs/platform/defs.yaml"]
    assert set(yaml.safe_load(block.text)["attributes"]) <= set(FeaturePlatform.model_fields)


@pytest.mark.parametrize("block", of("python"), ids=str)
def test_python_compiles_and_its_imports_exist(block: Block) -> None:
    for node in ast.walk(ast.parse(block.text, str(block))):
        if isinstance(node, ast.Import):
            wanted = [(alias.name, "") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            wanted = [(node.module or "", alias.name) for alias in node.names]
        else:
            continue
        for module, name in wanted:
            if module.partition(".")[0] in _OWN:
                continue
            if module.startswith("mm_") and name:
                assert hasattr(importlib.import_module(module), name), f"{block}: {module}.{name}"
            else:
                assert importlib.util.find_spec(module), f"{block}: {module}"


@pytest.mark.parametrize("block", of("toml"), ids=str)
def test_toml_is_valid(block: Block) -> None:
    assert tomllib.loads(block.text)


def test_the_readme_is_short_and_says_how_to_test() -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    assert len(text.splitlines()) <= 150
    commands = [
        line for line in (ROOT / ".ci" / "run").read_text("utf-8").splitlines() if line.startswith("make ")
    ]
    lines = {
        command.partition("#")[0].strip()
        for block in blocks(ROOT / "README.md")
        for command in block.commands
    }
    assert commands
    assert set(commands) <= lines
    assert os.access(ROOT / ".ci" / "run", os.X_OK)


def test_the_readme_shows_what_the_tutorial_shows() -> None:
    """The tutorial's sessions are compared with what commands print; the README repeats a part of them."""
    shown = {
        line
        for page in DOCS.glob("tutorial/*.md")
        for block in blocks(page)
        for line in block.text.splitlines()
    }
    sessions = [block for block in blocks(ROOT / "README.md") if "$ mm " in block.text]
    assert sessions
    assert [line for block in sessions for line in block.text.splitlines() if line not in shown] == []
