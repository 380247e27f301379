"""The wheel works outside of the repository: the command line, the code location, and each home's dagster.yaml."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml

from tests.supply_chain.test_core import HERE, ROOT, check_reader, run, store

__all__ = ["store"]
PACKAGES = ("mm_assets", "mm_resources", "mm_embed_kernels")
# Bytes of the files of an environment with the core.
MOST = 1_000_000_000


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel from a copy of what it is built from, since setuptools writes beside its sources."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in ("pyproject.toml", "README.md", "LICENSE", "NOTICE"):
        shutil.copy(ROOT / name, source)
    for name in PACKAGES:
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", target, source],
        check=True,
        capture_output=True,
    )  # fmt: skip
    (built,) = target.glob("mm_features-*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of the wheel, as they lie in site-packages."""
    folder = tmp_path_factory.mktemp("site-packages")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def test_it_holds_the_packages_and_their_data(installed: Path) -> None:
    for name in PACKAGES:
        found = {path.relative_to(installed) for path in (installed / name).rglob("*") if path.is_file()}
        assert found == {
            path.relative_to(ROOT)
            for path in (ROOT / name).rglob("*")
            if path.is_file() and "__pycache__" not in path.parts
        }
    (metadata,) = installed.glob("*.dist-info")
    assert {path.name for path in (metadata / "licenses").iterdir()} == {"LICENSE", "NOTICE"}
    assert sorted(path.name for path in installed.iterdir()) == sorted([*PACKAGES, metadata.name])


@pytest.fixture
def work(tmp_path: Path) -> Path:
    folder = tmp_path / "work"
    (folder / "notes").mkdir(parents=True)
    for name, text in (
        ("a", "The heron stands in the pond."),
        ("b", "Coffee is ground before it is brewed."),
    ):
        (folder / "notes" / f"{name}.txt").write_text(text)
    return folder


def test_a_home_gets_the_pools_and_the_monitoring_of_runs(installed: Path, work: Path) -> None:
    mm = [sys.executable, "-m", "mm_assets.cli.main"]
    (work / "specs").mkdir()

    def call(*words: str) -> str:
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("MM_", "DAGSTER_", "PYTHON"))}
        done = subprocess.run(
            [*mm, *words],
            cwd=work,
            env={**environment, "PYTHONPATH": str(installed), "MM_DATASETS": str(work / "specs")},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, (words, done.stderr)
        return done.stdout

    exports = call("env")
    assert f"MM_DATASETS={work / 'specs'}" in exports
    home = yaml.safe_load((work / ".mm" / "dagster" / "dagster.yaml").read_text("utf-8"))
    assert home["concurrency"]["pools"] == {"granularity": "run", "default_limit": 1}
    assert home["run_monitoring"]["enabled"] is True
    # A file of the user's own stays as it is.
    (work / ".mm" / "dagster" / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    call("env")
    assert (work / ".mm" / "dagster" / "dagster.yaml").read_text() == "telemetry: {enabled: false}\n"


def test_the_code_location_loads(installed: Path, work: Path) -> None:
    program = (
        "import mm_assets.definitions as d, mm_assets; print(mm_assets.__file__);"
        "print(len(list(d.defs.resolve_asset_graph().get_all_asset_keys())))"
    )
    done = run([sys.executable, "-c", program], work, work / "store", installed)
    assert done.returncode == 0, done.stderr
    file, count = done.stdout.split()
    assert Path(file).is_relative_to(installed)
    assert int(count) >= 12


@pytest.mark.slow
def test_the_core_is_below_a_gigabyte_and_reads(wheel: Path, store: Path, tmp_path: Path) -> None:
    """In an environment of its own: asks the package registry."""
    uv = shutil.which("uv", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if uv is None:
        pytest.skip("without uv")
    folder = tmp_path / "environment"
    python = folder / "bin" / "python"
    subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, folder], check=True)
    constraint = ["--constraint", ROOT / "constraints.txt"]
    subprocess.run([uv, "pip", "install", "--quiet", "--python", python, *constraint, wheel], check=True)
    files = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    assert sum(path.stat().st_size for path in files) < MOST
    there = {path.name for path in (folder / "lib").rglob("site-packages/*")}
    assert there & {"torch", "dagster", "ray", "transformers", "polars", "pandas"} == set()
    (tmp_path / "out").mkdir()
    check_reader(run([python, HERE / "reader.py", store, tmp_path / "out"], tmp_path, store, None))
    found = run(
        [folder / "bin" / "mm", "search", "coffee", "--modality", "text", "--mode", "text"],
        tmp_path,
        store,
        None,
    )
    assert "Espresso is made by forcing" in found.stdout, found.stderr
    refused = run([folder / "bin" / "mm", "backfill", "small@v1"], tmp_path, store, None)
    assert refused.returncode == 2
    assert refused.stderr.endswith("which is not installed: pip install 'mm-features[platform]'\n")
