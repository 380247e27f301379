"""The command line beside hostile names and folders: no control reaches the terminal, no file there is imported."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import mm_assets.cli
from mm_assets.operations.promotion import _import_evaluation
from mm_resources.maintenance import upkeep
from mm_resources.storage.lance_errors import Fenced

SPEC = """
name: odd
version: v1
sources: [{name: a, modality: image, uri: "img/*"}]
gates: {max_failed_share: 1.0}
"""


def test_a_file_name_with_controls(work: Path, mm: Any) -> None:
    (work / "img").mkdir()
    name = "esc\x1b[2J\x1b]52;c;QUFB\x1b\\\x9b31m\u202e.png"
    (work / "img" / name).write_bytes(b"\x89PNG\r\n\x1a\njunkjunk")
    (work / "spec.yaml").write_text(SPEC)
    printed = ""
    for words in (
        ("init", "img"),
        ("register", "spec.yaml"),
        ("backfill", "odd@v1"),
        ("failures", "odd@v1"),
        ("failures", "odd@v1", "--json"),
        ("status", "odd@v1", "--drift"),
        ("register", f"{name}.yaml"),
    ):
        done = mm(*words)
        printed += done.stdout + done.stderr
    assert "esc" in printed
    assert [char for char in printed if not char.isprintable() and char not in "\n"] == []


def test_texts_are_printed_in_one_place() -> None:
    folder = Path(mm_assets.cli.__file__).parent
    bare = [
        f"{path.name}:{number}"
        for path in folder.glob("*.py")
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if path.name != "output.py"
        and (" print(" in line or "typer.echo" in line or "sys.stdout.write" in line)
    ]
    assert bare == []


def test_an_evaluation_is_imported_from_the_working_folder_and_nothing_else(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    monkeypatch.chdir(work)
    before = list(sys.path)
    (work / "my_test_of_it.py").write_text(
        "import beside_it\nimport textwrap\ndef judge(*_): return beside_it.PASSED\n"
    )
    (work / "beside_it.py").write_text("PASSED = True\n")
    (work / "textwrap.py").write_text("raise ImportError('planted')\n")
    try:
        assert _import_evaluation("my_test_of_it").judge() is True
    finally:
        for name in ("my_test_of_it", "beside_it"):
            sys.modules.pop(name, None)
    assert sys.path == before
    with pytest.raises(ImportError):
        _import_evaluation("absent_module_of_it")
    assert sys.path == before


@pytest.mark.parametrize(
    "error",
    [
        Fenced("t was published by another run since this one began"),
        ValueError(
            "LanceError(IO): error sending request for url (http://store/), /rust/lance/src/dataset.rs:1:2"
        ),
    ],
)
def test_another_writer_and_a_store_that_is_away_are_one_line(
    mm: Any, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(upkeep, "upkeep", fail)
    done = mm("upkeep")
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("error: ")
    assert ".rs:" not in done.stderr
