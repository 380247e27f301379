"""The locks: hashed, complete, one version of each package in all of them, and installed with hashes by everything."""

from __future__ import annotations

import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
LOCKS = ("requirements.txt", "requirements-dev.txt", "requirements-audit.txt")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]


def name_and_marker(requirement: Requirement) -> str:
    return f"{canonicalize_name(requirement.name)};{requirement.marker or ''}"


def entries(name: str) -> dict[str, tuple[Requirement, list[str]]]:
    """Return the requirements of a lock with their hashes, by name."""
    found: dict[str, tuple[Requirement, list[str]]] = {}
    for line in (ROOT / name).read_text("utf-8").replace("\\\n", " ").splitlines():
        if line.strip() and not line.startswith("#"):
            text, *hashes = line.split(" --hash=")
            requirement = Requirement(text.strip())
            # Once, or once for each of several Pythons.
            key = name_and_marker(requirement)
            assert key not in found, f"{name}: {key} twice"
            found[key] = requirement, [word.strip() for word in hashes]
    return found


def requirements_of(extra: str) -> list[str]:
    """Return the requirements of an extra, those of the extras that it names included."""
    found = []
    for text in PROJECT["optional-dependencies"][extra]:
        requirement = Requirement(text)
        if requirement.name == PROJECT["name"]:
            found += [inner for name in sorted(requirement.extras) for inner in requirements_of(name)]
        else:
            found.append(text)
    return found


@pytest.mark.parametrize("name", LOCKS)
def test_each_package_is_pinned_and_hashed(name: str) -> None:
    for requirement, hashes in entries(name).values():
        assert re.fullmatch(r"==[^*]+", str(requirement.specifier)), requirement
        assert requirement.url is None
        assert hashes, f"{requirement} has no hash"
        assert all(re.fullmatch(r"sha256:[0-9a-f]{64}", text) for text in hashes)


def test_the_locks_agree() -> None:
    plain = {
        name_and_marker(found): (canonicalize_name(found.name), str(found.specifier))
        for line in (ROOT / "constraints.txt").read_text("utf-8").splitlines()
        if line.strip()
        for found in [Requirement(line)]
    }
    image, development = entries("requirements.txt"), entries("requirements-dev.txt")
    pins = set(plain.values())
    assert {
        (canonicalize_name(found.name), str(found.specifier)) for found, _ in development.values()
    } <= pins
    # By version: what one of them needs on Windows alone, the other may need everywhere.
    archives = {
        (canonicalize_name(found.name), str(found.specifier)): hashes
        for found, hashes in development.values()
    }
    for found, hashes in image.values():
        assert archives[canonicalize_name(found.name), str(found.specifier)] == hashes, found
    assert not {"pytest", "ruff", "mypy", "localbucket", "playwright"} & {
        key.partition(";")[0] for key in image
    }


@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13"])
def test_the_locks_serve_each_python_that_is_supported(python: str) -> None:
    """All of the project's requirements are met in this Python, none by a line for another one alone."""
    environment = {
        "python_version": python, "python_full_version": f"{python}.0", "sys_platform": "linux", "platform_machine": "x86_64",
        "implementation_name": "cpython", "platform_python_implementation": "CPython", "extra": "",
    }  # fmt: skip

    def applies(marker: Marker | None) -> bool:
        return marker is None or marker.evaluate(environment)

    image = [*PROJECT["dependencies"], *requirements_of("all"), *requirements_of("cluster")]
    tools = [text for extra in ("dev", "docs", "browser") for text in requirements_of(extra)]
    for name, wanted in (("requirements.txt", image), ("requirements-dev.txt", [*image, *tools])):
        applying = [found for found, _ in entries(name).values() if applies(found.marker)]
        installed = {canonicalize_name(found.name): found for found in applying}
        assert len(installed) == len(applying), "two versions of a package in one Python"
        for text in [*wanted, "setuptools>=77", "aisfx==0.1.2"]:
            requirement = Requirement(text)
            (pinned,) = installed[canonicalize_name(requirement.name)].specifier
            assert requirement.specifier.contains(pinned.version, prereleases=True), text


def test_what_installs_asks_for_hashes() -> None:
    """The local code alone has none: it is installed without its requirements, by the build backend of the lock."""
    make = (ROOT / "Makefile").read_text("utf-8")
    assert "HASHED := --require-hashes --no-deps --only-binary :all:" in make
    recipes = [
        line.strip()
        for line in make.splitlines()
        if line.startswith("\t") and ("(PIP)" in line or "pip install" in line)
    ]
    peers = [line for line in recipes if line.startswith(".venv-peers/")]
    assert len(peers) == 1, "code of others, measured in an environment of its own"
    # Builds of PyTorch from an index that the user names: the lock has no hashes of those.
    others = [line for line in recipes if "--index-url $(TORCH_INDEX)" in line]
    assert len(others) == 1
    for line in set(recipes) - {*peers, *others}:
        assert "$(HASHED)" in line or line.endswith("--no-deps --no-build-isolation --editable ."), line
    assert "make check" in (ROOT / ".ci" / "run").read_text("utf-8")


@pytest.mark.skipif(not shutil.which("awk"), reason="without awk")
@pytest.mark.parametrize("name", ["requirements.txt", "requirements-dev.txt"])
def test_another_index_of_torch_takes_everything_else_from_the_lock(name: str) -> None:
    make = (ROOT / "Makefile").read_text("utf-8")
    (program,) = re.findall(r"^WITHOUT_TORCH := awk '(.+)'$", make, re.MULTILINE)
    left = subprocess.run(["awk", program, ROOT / name], check=True, capture_output=True, text=True).stdout
    whole = {found.name for found, _ in entries(name).values()}
    kept = {line.partition("==")[0] for line in left.splitlines() if line[0].isalpha()}
    gone = whole - kept
    assert {"torch", "torchaudio", "torchvision", "triton"} <= gone
    assert all(re.match("torch|triton$|nvidia-|cuda-", found) for found in gone), gone
    # Whole entries: each hash belongs to one that is kept.
    assert left.count("--hash=") == sum(
        len(hashes) for found, hashes in entries(name).values() if found.name in kept
    )
