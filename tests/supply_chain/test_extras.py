"""Extras: what each contains, that all of it is used, and the line that tells which one is missing."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import mm_assets
import mm_embed_kernels
import mm_resources
from mm_embed_kernels import extras
from mm_embed_kernels.embedders import create, embedders
from mm_embed_kernels.errors import UserError
from mm_embed_kernels.inference.weight_sums import VERSIONS, WEIGHT_SUMS, reinstall_remedy

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
PACKAGES = ("mm_assets", "mm_resources", "mm_embed_kernels")
# Packages that nothing imports by name, each with what uses it.
UNNAMED = {
    "dagster-webserver": "the program of the UI",
    "onnx": "torch.onnx.export, in conse",
    "onnxscript": "torch.onnx.export, in conse",
    "s3fs": "fsspec, for s3://",
    "torchvision": "timm and open_clip",
    **dict.fromkeys(("adlfs", "gcsfs", "paramiko"), "fsspec, for other schemes"),
    "python-multipart": "fastapi, for uploads",
}


def names_of(requirements: list[str]) -> set[str]:
    found = {canonicalize_name(Requirement(text).name) for text in requirements}
    return found - {canonicalize_name(PROJECT["name"])}


DECLARED = {name: names_of(texts) for name, texts in PROJECT["optional-dependencies"].items()}
CORE = names_of(PROJECT["dependencies"])


def test_the_table_of_messages_has_the_packages_of_the_extras() -> None:
    for name, packages in extras.EXTRAS.items():
        assert set(map(canonicalize_name, packages)) <= DECLARED[name], name
    known = {canonicalize_name(package) for packages in extras.EXTRAS.values() for package in packages}
    wanted = set().union(*(DECLARED[name] for name in (*extras.EXTRAS, "train")))
    assert wanted - known - set(UNNAMED) == set()
    assert known & CORE == set()


def test_all_takes_every_extra_for_one_machine() -> None:
    (whole,) = map(Requirement, PROJECT["optional-dependencies"]["all"])
    tools = {"all", "browser", "cluster", "croissant", "dev", "docs", "remote", "track"}
    assert whole.extras == set(DECLARED) - tools


def modules() -> dict[str, str]:
    """The text of each module of the packages, but that of the table."""
    paths = [path for name in PACKAGES for path in (ROOT / name).rglob("*.py") if path.name != "extras.py"]
    return {str(path.relative_to(ROOT)): path.read_text("utf-8") for path in paths}


def imports_of(text: str) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.partition(".")[0])
    return found


def test_each_import_is_declared_and_each_package_is_used() -> None:
    texts = modules()
    imported = set().union(*map(imports_of, texts.values())) - set(sys.stdlib_module_names) - set(PACKAGES)
    owners = {
        module: set(map(canonicalize_name, packages)) for module, packages in packages_distributions().items()
    }
    declared = set().union(CORE, *(DECLARED[name] for name in (*extras.EXTRAS, "train")))
    others = sorted(module for module in imported if not owners.get(module, set()) & declared)
    # A part of pydantic; and one that is used where somebody has installed it.
    assert others == ["pydantic_core", "umap"]
    used = set().union(*(owners.get(module, set()) for module in imported))
    # Weights are found by the module's name, without an import.
    whole = "\n".join(texts.values())
    by_file = {
        canonicalize_name(package)
        for packages in extras.EXTRAS.values()
        for package, module in packages.items()
        if package not in UNNAMED and f'"{module}"' in whole
    }
    assert declared - used - by_file == set(UNNAMED)


def test_each_package_stands_with_its_reason() -> None:
    text = (ROOT / "pyproject.toml").read_text("utf-8")
    block = text[text.index("dependencies = [") : text.index("browser = [")]
    lines = [line for line in block.splitlines() if re.match(r'    "', line)]
    # Where the extra has one package beside others of the project, its own comment says it.
    alone = (
        "faster-whisper",
        "mm-features",
        "huggingface-hub",
        "open_clip_torch",
        "sentence-transformers",
        "dagster==",
    )
    assert len(lines) > 60
    assert [line for line in lines if "#" not in line and not line.strip().strip('"').startswith(alone)] == []


def test_messages_name_the_extra_or_the_exact_command() -> None:
    assert str(extras.MissingPackage("TrainingSet.to_torch", "torch", "train")) == (
        "TrainingSet.to_torch needs the package torch, which is not installed: pip install 'mm-features[train]'"
    )
    assert str(extras.MissingPackage("embedder aisfx", "aisfx")).endswith(
        ": pip install --no-deps aisfx==0.1.2"
    )
    with (
        pytest.raises(UserError, match=r"a report needs the package matplotlib.*mm-features\[platform\]"),
        extras.explain_missing("a report"),
    ):
        raise ModuleNotFoundError("No module named 'matplotlib.pyplot'", name="matplotlib.pyplot")
    with pytest.raises(ModuleNotFoundError), extras.explain_missing("a plug-in"):
        raise ModuleNotFoundError("No module named 'own'", name="own")


def test_an_embedder_without_its_package_is_refused_when_it_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extras, "find_spec", lambda _: None)
    for name in embedders():
        with pytest.raises(UserError, match=rf"embedder {name}\b.* needs the package .*: pip install "):
            _ = create(f"{name}:a/b" if embedders()[name].takes_model else name).fingerprint


def test_no_message_names_a_command_of_the_repository() -> None:
    assert [path for path, text in modules().items() if re.search(r"make (install|demo|ui)\b", text)] == []


def test_weights_are_of_the_releases_that_are_pinned() -> None:
    pinned = {
        canonicalize_name(item.name): str(item.specifier)
        for text in [
            *(text for texts in PROJECT["optional-dependencies"].values() for text in texts),
            *(
                line
                for line in (ROOT / "requirements.in").read_text("utf-8").splitlines()
                if line[:1].isalpha()
            ),
        ]
        for item in [Requirement(text)]
    }
    assert {name: f"=={version}" for name, version in VERSIONS.items()} == {
        name: pinned[name] for name in VERSIONS
    }
    assert set(VERSIONS) == set(WEIGHT_SUMS)
    assert reinstall_remedy("wordllama").endswith(
        "pip install --force-reinstall --no-deps wordllama==0.4.0.post1"
    )
    notice = (ROOT / "NOTICE").read_text("utf-8")
    for name, sums in WEIGHT_SUMS.items():
        assert f"{name} {VERSIONS[name]}" in notice
        assert all(f"{value}  {path}" in notice for path, value in sums.items())


def test_the_public_api_is_the_documented_one() -> None:
    page = (ROOT / "docs" / "reference" / "python.md").read_text("utf-8")
    documented = {path.rpartition(".")[2] for path in re.findall(r"^::: (\S+)$", page, re.MULTILINE)}
    assert documented == set(mm_resources.__all__) - {"__version__"}
    for path in re.findall(r"^::: (\S+)$", page, re.MULTILINE):
        module, _, name = path.rpartition(".")
        assert getattr(mm_resources, name) is getattr(sys.modules[module], name)
    assert set(mm_resources.__all__) <= set(dir(mm_resources))


def test_the_version_is_that_of_the_distribution() -> None:
    assert {each.__version__ for each in (mm_assets, mm_resources, mm_embed_kernels)} == {PROJECT["version"]}
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = mm_resources.nothing
