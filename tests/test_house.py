"""The shape of the packages: nouns for modules, a sentence for each room, nothing too long to read."""

from __future__ import annotations

import ast
import re
import tomllib
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = ("mm_assets", "mm_resources", "mm_embed_kernels")
MODULES = {
    str(path.relative_to(ROOT)): path.read_text("utf-8")
    for package in PACKAGES
    for path in sorted((ROOT / package).rglob("*.py"))
}
# Words of the field that end like a verb's form.
NOUNS = {"accounting", "embed", "forgetting", "forgotten", "metering", "padding", "resampling"}
# Verbs and nouns that end like a participle or an adverb, the name of a schedule, and names that users of
# `FeatureStore` call and plug-ins override.
FUNCTION_NAMES = {
    "children",
    "embed",
    "listen",
    "nightly",
    "open",
    "published",
    "reopen",
    "unmatched",
    "widen",
}
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def test_modules_are_named_by_nouns() -> None:
    """Rules are named as specs name them, by what they find a sample to be."""
    stems = {name: Path(name).stem for name in MODULES if "/rules/" not in name}
    participles = [
        name for name, stem in stems.items() if re.fullmatch(r"[a-z]+(ing|ed|en)", stem) and stem not in NOUNS
    ]
    assert participles == []


def test_functions_are_not_named_by_participles_or_adverbs() -> None:
    """They are verbs, or the noun of their result."""
    names = [
        (name, node.name)
        for name, text in MODULES.items()
        for node in ast.walk(ast.parse(text))
        if isinstance(node, FUNCTIONS) and node.name.strip("_") not in FUNCTION_NAMES
    ]
    assert [item for item in names if re.fullmatch(r"_*[a-z]+(ed|en|ly)", item[1])] == []


def test_modules_and_classes_are_short() -> None:
    assert [name for name, text in MODULES.items() if len(text.splitlines()) > 350] == []
    classes = [
        (name, node.name)
        for name, text in MODULES.items()
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.ClassDef) and (node.end_lineno or 0) - node.lineno >= 250
    ]
    assert classes == []


def test_only_the_catalog_opens_the_parts_of_a_store() -> None:
    """Whatever stands above it takes a catalog; below it, a part opens the parts that it consists of."""
    catalog = ast.parse(MODULES["mm_resources/catalog.py"])
    parts = {
        ast.unparse(node.returns)
        for node in ast.walk(catalog)
        if isinstance(node, ast.FunctionDef) and node.returns
    }
    parts &= {
        alias.name for node in ast.walk(catalog) if isinstance(node, ast.ImportFrom) for alias in node.names
    }
    parts |= {"Store"}
    assert {"Registry", "StageTables", "BlobStore", "FeatureTables", "Ledger", "SecretTable"} <= parts
    above = (
        "mm_assets/",
        *(
            f"mm_resources/{room}"
            for room in ("costs", "maintenance", "monitoring", "retrieval", "resources.py")
        ),
    )
    opened = [
        (name, node.lineno, node.func.id)
        for name, text in MODULES.items()
        if name.startswith(above)
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in parts
    ]
    assert opened == []


def test_each_room_says_what_lives_in_it() -> None:
    rooms = {
        name: ast.get_docstring(ast.parse(text))
        for name, text in MODULES.items()
        if name.endswith("__init__.py")
    }
    assert [name for name, text in rooms.items() if not text or not text.splitlines()[0].endswith(".")] == []


def test_the_linter_and_the_tables_of_rooms_agree() -> None:
    """CONTRIBUTING lists the rooms of each floor that the layers in pyproject hold."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"][
        "contracts"
    ]
    tables = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    for package in PACKAGES:
        (layers,) = (each["layers"] for each in contracts if each.get("containers") == [package])
        floors: dict[int, set[str]] = defaultdict(set)
        section = tables.partition(f"### {package}\n")[2].partition("###")[0]
        for floor, rooms in re.findall(r"^\| (\d+) \| ([^|]+) \|", section, re.MULTILINE):
            floors[int(floor)] |= set(re.findall(r"`(\w+)`", rooms))
        assert [floors[floor] for floor in sorted(floors, reverse=True)] == [
            set(layer.split(" | ")) for layer in layers
        ]


def test_folders_of_tests_are_named_after_rooms() -> None:
    """Of `tests/assets`, also after rooms of `mm_resources` that are tested through the assets."""
    rooms = {package: {path.name for path in (ROOT / package).iterdir()} for package in PACKAGES}
    allowed = {
        "assets": rooms["mm_assets"] | rooms["mm_resources"] | {"whole_path"},
        "resources": rooms["mm_resources"],
        "kernels": rooms["mm_embed_kernels"],
    }
    for name, known in allowed.items():
        folders = {path.parent.name for path in (ROOT / "tests" / name).glob("*/__init__.py")}
        assert folders - known == set()


def test_docstrings_say_the_thing_itself() -> None:
    """And do not begin with a question word, as "What a query is" does."""
    beginnings = [
        (name, text.splitlines()[0])
        for name, source in MODULES.items()
        for node in ast.walk(ast.parse(source))
        if isinstance(node, DOCUMENTED) and (text := ast.get_docstring(node))
        if re.match(r"(What|How|Where|Whether|Who|Which|Why)\b", text)
    ]
    assert beginnings == []


def test_imports_between_modules_stand_at_the_top() -> None:
    """Inside functions only for the command line, and elsewhere beside a comment on what is not to be loaded."""
    hidden = []
    for name, text in MODULES.items():
        lines = text.splitlines()
        functions = [node for node in ast.walk(ast.parse(text)) if isinstance(node, FUNCTIONS)]
        for node in (node for function in functions for node in ast.walk(function)):
            if (
                isinstance(node, ast.ImportFrom)
                and (node.module or "").startswith("mm_")
                and "/cli/" not in name
            ):
                near = "".join(lines[max(0, node.lineno - 3) : node.end_lineno])
                hidden += [] if "#" in near else [(name, node.lineno)]
    assert hidden == []
