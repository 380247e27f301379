"""The JSON of commands has the shapes that the docs show."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer.main

from mm_assets.cli.main import app
from tests.assets.cli.shapes import SHAPES, mismatches
from tests.assets.conftest import Platform, Run

# Commands of which `test_cli.py` and others look at the values; or which need what `tiny@v1` lacks.
_ELSEWHERE = {"init", "register", "unregister", "backfill", "doctor", "diff"}
_V = ("--dataset-version", "tiny@v1")
CALLS = {
    "datasets": (),
    "backfill --plan": ("tiny@v1",),
    "curate": ("tiny@v1", "--what-if", "too_small.min_side=1000"),
    "label": _V,
    "cost": ("tiny@v1",),
    "report": ("tiny@v1", "--modality", "image", "--out", "report.html"),
    "failures": ("tiny@v1",),
    "failures --classes": (),
    "failures --suggest": ("tiny@v1",),
    "redrive": ("tiny@v1", "--modality", "image"),
    "status": ("tiny@v1",),
    "search": ("a cat", *_V, "--modality", "image", "-k", "1"),
    "explain": (),
    "try": ("wordllama", *_V, "--modality", "text", "--sample", "2"),
    "promote": ("tiny@v1", "--to", "staging"),
    "sql": ("select label, count(*) as n from features('tiny@v1', 'image') group by 1",),
    "pick": ("tiny@v1", "--modality", "image", "-n", "1", "--by", "diversity,label"),
    "export": ("tiny@v1", "--modality", "image", "--out", "exported"),
    "trace": ("exported/_manifest.json",),
    "forgotten": ("exported",),
    "audit": ("tiny@v1", "--modality", "image", "--sample", "2"),
    "env": (),
    "upkeep": (),
    "gc": ("--dry-run",),
    "forget": (),
}


def test_the_json_of_commands_has_its_shape(mm: Run, published_copy: Platform) -> None:
    store = published_copy.settings.store
    found: dict[str, list[str]] = {}
    found_ids = {"explain": (), "forget": ()}
    for command, words in CALLS.items():
        arguments = found_ids.get(command, words)
        done = mm(*command.split(), *arguments, "--json", MM_STORE=store)
        assert done.returncode == 0, (command, done.stderr)
        value = json.loads(done.stdout)
        found[command] = list(mismatches(value, SHAPES[command]))
        if command == "search":
            found_ids = {
                "explain": (value[0]["feature_id"],),
                "forget": (value[0]["sample_id"], "--yes"),
            }
    assert {command: lines for command, lines in found.items() if lines} == {}


def test_a_first_dataset_has_its_shapes(mm: Run, photos: dict[str, Path], tmp_path: Path) -> None:
    folder = tmp_path / "zoo"
    folder.mkdir()
    for number, photo in enumerate(photos.values()):
        (folder / f"{number}.jpg").write_bytes(photo.read_bytes())
    calls = {
        "init": (folder, "--name", "zoo"),
        "register": (folder / "dataset.yaml",),
        "unregister": ("zoo@v1",),
    }
    for command, words in calls.items():
        value = json.loads(mm(command, *words, "--json").stdout)
        assert list(mismatches(value, SHAPES[command])) == []
    value = json.loads(mm("doctor", "--json").stdout)
    assert list(mismatches(value, SHAPES["doctor"])) == []


def test_each_shape_is_of_a_command_and_is_looked_at() -> None:
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    assert [name for name in SHAPES if name.split()[0] not in commands] == []
    assert set(SHAPES) == set(CALLS) | _ELSEWHERE


@pytest.mark.parametrize(
    ("value", "shape", "lines"),
    [
        ({"a": 1}, {"a": "int", "b?": "text"}, []),
        ({"a": 1, "c": 2}, {"a": "int"}, [".c is new"]),
        ({}, {"a": "int"}, [".a is missing"]),
        ({"a": None}, {"a": "int"}, [".a is NoneType, not int"]),
        ({"a": None}, {"a": "int?"}, []),
        ([{"x": True}], [{"x": "int"}], ["[0].x is bool, not int"]),
        ({"x": 1, "y": 2}, {"NAME": "int"}, []),
    ],
)
def test_mismatches_are_named(value: object, shape: object, lines: list[str]) -> None:
    assert list(mismatches(value, shape)) == lines
