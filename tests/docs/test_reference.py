"""The reference is written from the code: nothing in it is missing, and the JSON Schema's file is current."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Iterator

import pytest
import typer.main

from mm_assets.cli.main import app
from mm_embed_kernels.embedders import embedders
from mm_embed_kernels.error_classes import error_classes
from mm_embed_kernels.rules import rules
from mm_embed_kernels.spec.dataset_spec import DatasetSpec
from mm_resources.settings import VARIABLES
from mm_resources.sources import sources
from tests.docs.blocks import DOCS, ROOT

PACKAGES = ("mm_assets", "mm_resources", "mm_embed_kernels")


@pytest.fixture(scope="module", autouse=True)
def path() -> Iterator[None]:
    sys.path.insert(0, str(DOCS))
    yield
    sys.path.remove(str(DOCS))


def test_the_json_schema_is_current() -> None:
    from reference_pages import spec

    current = spec.text() == spec.FILE.read_text("utf-8")
    assert current, "run `python docs/reference_pages/spec.py` and commit the file"


def test_each_key_of_a_spec_is_described() -> None:
    whole = DatasetSpec.model_json_schema(by_alias=True)
    parts = {"DatasetSpec": whole, **whole["$defs"]}
    keys = {(name, key): item for name, part in parts.items() for key, item in part["properties"].items()}
    assert [key for key, item in keys.items() if not item.get("description")] == []


def test_each_variable_of_the_environment_is_listed() -> None:
    text = "\n".join(path.read_text("utf-8") for name in PACKAGES for path in (ROOT / name).rglob("*.py"))
    read = set(re.findall(r"environ(?:\.get)?[(\[]\s*\"(MM_\w+|DAGSTER_HOME|RAY_ADDRESS)\"", text))
    assert read <= {item.name for item in VARIABLES}
    assert [item.name for item in VARIABLES if item.name not in text] == []


def test_pages_have_every_command_rule_embedder_source_and_error_class() -> None:
    from reference_pages import cli, plugins

    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    assert [name for name in commands if f"## mm {name}\n" not in cli.page()] == []
    options = [
        f"`{name}"
        for command in commands.values()
        for item in command.params
        for name in item.opts
        if name[0] == "-"
    ]
    page = cli.page()
    assert [name for name in options if name not in page] == []
    for page, names in (
        (plugins.rules_page(), rules()),
        (plugins.sources_page(), sources()),
        (plugins.embedders_page(), embedders()),
        (plugins.error_classes_page(), [item.name for item in error_classes()]),
    ):
        assert [name for name in names if f"`{name}" not in page and f"## {name}\n" not in page] == []


def test_the_names_that_plug_ins_import_exist() -> None:
    """`docs/how-to/plug-ins.md` promises them: each stays in the module that it is listed under."""
    text = (DOCS / "how-to" / "plug-ins.md").read_text("utf-8")
    listed = re.findall(r"^\| `(mm_[\w.]+)`(?: \(also `(\.\w+)`\))? \| (.+) \|$", text, re.MULTILINE)
    assert len(listed) > 10
    for module, also, names in listed:
        for place in filter(None, (module, also and module + also)):
            held = vars(importlib.import_module(place))
            assert [name for name in re.findall(r"`(\w+)`", names) if name not in held] == [], place


def test_pages_of_tables_and_settings_have_every_row() -> None:
    from reference_pages import settings, tables

    from mm_embed_kernels.contracts.pipeline import STAGES

    page = tables.page()
    assert [name for name in STAGES if f"## {name}\n" not in page] == []
    page = settings.page()
    assert [item.name for item in VARIABLES if f"`{item.name}`" not in page] == []
