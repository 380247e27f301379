"""`mm` in a folder of a stranger's: nothing is imported from there, whatever its files are named."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
# Files that would be imported by their names: modules, packages, namespace packages, plug-ins.
MODULES = (
    *("lance", "lancedb", "dagster", "pyarrow", "numpy", "torch", "duckdb", "yaml", "pydantic", "PIL", "av"),
    *("typer", "rich", "json", "mm_resources", "mm_embed_kernels", "conftest", "evaluate", "filetype"),
    *("multiprocessing", "random"),
)
FIRST = ("sitecustomize", "usercustomize", "mm_assets")
SENTENCES = (
    "The cat sleeps on the warm sofa all day long.",
    "Espresso is made by forcing hot water through ground coffee.",
    "The harbour was empty but for two fishing boats at anchor.",
)
# As the installed command does: the interpreter's script lies elsewhere.
COMMAND = "from mm_assets.cli.start import start; start()"


def plant(folder: Path, names: tuple[str, ...]) -> Path:
    """Plant modules that leave a mark, as files and as packages, and what else names code."""
    mark = folder.parent / "imported"
    code = f"open({str(mark)!r}, 'a').write(__name__ + chr(10))\nraise ImportError('planted')\n"
    for place, name in enumerate(names):
        if place % 2:
            (folder / f"{name}.py").write_text(code)
        else:
            (folder / name).mkdir()
            (folder / name / "__init__.py").write_text(code)
    (folder / "space").mkdir()
    (folder / "space" / "module.py").write_text(code)
    (folder / "planted.pth").write_text(f"import os; open({str(mark)!r}, 'a').write('pth')\n")
    (folder / ".env").write_text("PYTHONSTARTUP=conftest.py\n")
    (folder / "dagster.yaml").write_text("run_launcher: {module: evaluate, class: Launcher}\n")
    (folder / "pyproject.toml").write_text('[tool.dagster]\nmodule_name = "evaluate"\n')
    return mark


COMMANDS = (
    ["register", "spec.yaml"],
    ["backfill", "few@v1"],
    ["promote", "few@v1"],
    ["search", "many words", "--modality", "text"],
)
# An empty entry, in front or behind, means the working folder. What the interpreter imports itself before any code
# of this project is its own.
WITH_FOLDER = f"{ROOT}::./"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "work"
    folder.mkdir()
    for number, text in enumerate(SENTENCES):
        (folder / f"{number}.txt").write_text(text)
    source = "{name: notes, modality: text, uri: '*.txt'}"
    spec = f"{{name: few, version: v1, embedders: {{text: [wordllama]}}, sources: [{source}]}}"
    (folder / "spec.yaml").write_text(spec)
    return folder


def run(folder: Path, words: list[str], python_path: str, mark: Path) -> None:
    """Run a command in the folder: it ends as usual, and leaves no mark."""
    done = subprocess.run(
        [sys.executable, "-P", "-c", COMMAND, *words],
        cwd=folder,
        env={"PATH": os.environ["PATH"], "HOME": str(folder.parent), "PYTHONPATH": python_path},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode in (0, 1), (words, done.stderr[-2000:])
    assert not mark.exists(), (words, mark.read_text())


def test_nothing_is_imported_from_the_working_folder(folder: Path) -> None:
    """A backfill beside all names, and beside the working folder as an entry of the path."""
    mark = plant(folder, (*FIRST, *MODULES))
    for words in COMMANDS[:2]:
        run(folder, words, f"{ROOT}", mark)
    for name in FIRST:
        shutil.rmtree(folder / name, ignore_errors=True)
        (folder / f"{name}.py").unlink(missing_ok=True)
    for words in COMMANDS[2:]:
        run(folder, words, WITH_FOLDER, mark)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("python_path", "names"),
    [(f"{ROOT}", (*FIRST, *MODULES)), (WITH_FOLDER, MODULES)],
    ids=["", "with folder"],
)
def test_no_command_imports_from_the_working_folder(
    python_path: str, names: tuple[str, ...], folder: Path
) -> None:
    mark = plant(folder, names)
    for words in COMMANDS:
        run(folder, words, python_path, mark)
