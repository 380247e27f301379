"""The blocks of the tutorial and of the how-to guides, run in order in one folder, as a reader runs them.

Sessions (`console`) show output: each line of it has to be printed, counts included, but for times, scores and other fractions,
ids and paths. Blocks whose title says that they are not run are left out. `test_blocks.py` checks those, too.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.blocks import ROOT, Block, blocks, pages

pytestmark = pytest.mark.slow

# Ids and hashes; times; paths up to the data; fractions (seconds, money, scores) and whole seconds; the padding of tables.
_VARIABLE = (
    (re.compile(r"\b[0-9a-f]{8,64}\b"), "ID"),
    (re.compile(r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(\.\d+)?"), "TIME"),
    (re.compile(r"\S*/(mine|exported|report\.html)\b"), r"\1"),
    (re.compile(r"\d[\d,]*\.\d+|\b\d+(?= s\b)"), "N"),
    (re.compile(r"[\s─│├└]+"), " "),
)


@pytest.fixture
def work() -> Iterator[Path]:
    """Yield a folder with the demo's data, the examples, and `mm` and `python` on its path.

    Its path is about as long as those that the pages show, so that tables are folded alike.
    """
    with tempfile.TemporaryDirectory(prefix="docs-") as name:
        yield furnish(Path(name))


def furnish(work: Path) -> Path:
    from mm_assets.demo.data import fetch

    fetch(work / ".mm" / "demo")
    (work / "examples").symlink_to(ROOT / "examples")
    programs = work / ".bin"
    programs.mkdir()
    for name, command in (("mm", f"{sys.executable} -m mm_assets.cli.main"), ("python", sys.executable)):
        (programs / name).write_text(f'#!/bin/sh\nexec {command} "$@"\n')
        (programs / name).chmod(0o755)
    return work


def run(block: Block, work: Path) -> str:
    """Run a block to its end and return what it prints.

    A title that is a path makes a file of a block of YAML or Python; Python without a title is run.
    """
    if block.title:
        target = work / block.title
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(block.text, "utf-8")
        return ""
    if block.language == "python":
        command = [sys.executable, "-c", block.text]
    elif block.commands:
        command = ["bash", "-euo", "pipefail", "-c", "\n".join(block.commands)]
    else:
        return ""
    variables = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("MM_") and name != "DAGSTER_HOME"
    }
    variables |= {"PATH": f"{work / '.bin'}:{os.environ['PATH']}", "PYTHONPATH": f"{ROOT}:{work}"}
    done = subprocess.run(command, cwd=work, env=variables, capture_output=True, text=True)
    assert done.returncode == 0, (
        f"{block} ended with {done.returncode}:\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    )
    return done.stdout + done.stderr


def plain(line: str) -> str:
    """Return a line without what differs from run to run."""
    for pattern, replacement in _VARIABLE:
        line = pattern.sub(replacement, line)
    return line.strip()


def expected(block: Block) -> Iterator[str]:
    """Yield what a session has to print: its lines, and of a row of a table that is folded the first two words.

    Cells are folded where paths are long, so that the rest of such a row may stand in other lines.
    """
    in_table = False
    for line, following in zip(block.output, [*block.output[1:], ""], strict=True):
        in_table = (in_table or "───" in line) and bool(line.strip())
        is_folded = in_table and following.startswith("  ")
        if not in_table or (line[1:2].strip() and not is_folded):
            yield plain(line)
        elif line[1:2].strip():
            yield " ".join(plain(line).split()[:2])


def test_the_tutorial_and_the_guides(work: Path) -> None:
    missing = []
    for page in pages():
        if page.parent == ROOT:  # the README's commands are those of `make` and of the tutorial
            continue
        for block in blocks(page):
            if not block.is_run:
                continue
            # Lines with a long path are folded.
            said = " ".join(" ".join(plain(line) for line in run(block, work).splitlines()).split())
            if block.language == "console":
                missing += [
                    f"{block}: {line}"
                    for line in expected(block)
                    if line != "..." and " ".join(line.split()) not in said
                ]
    assert not missing, "\n".join(missing)
