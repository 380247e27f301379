"""`mm failures` and `mm redrive` as a user runs them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import typer
import yaml

from mm_assets.cli.main import app
from mm_embed_kernels.error_classes import error_classes
from tests.assets.cli.test_cli import loaded, one_line_error
from tests.assets.conftest import Run

STUBS, BROKEN, GOOD = 6, 1, 8


@pytest.fixture
def notes(tmp_path: Path, photos: dict[str, Path]) -> Path:
    """Texts, of which six are stubs of two bytes and one is a picture."""
    folder = tmp_path / "data"
    (folder / "notes").mkdir(parents=True)
    for i in range(STUBS):
        (folder / "notes" / f"stub{i}.txt").write_bytes(b"\x00\x01")
    for i in range(GOOD):
        (folder / "notes" / f"good{i}.txt").write_text(
            f"A heron stood at the edge of pond number {i} and waited for a fish."
        )
    (folder / "notes" / "broken.txt").write_bytes(photos["flower"].read_bytes())
    spec = {
        "name": "ponds",
        "version": "v1",
        "embedders": {"text": ["wordllama"]},
        "gates": {"max_failed_share": 0.6},
        "sources": [{"name": "notes", "modality": "text", "uri": "notes/*.txt"}],
    }
    (folder / "dataset.yaml").write_text(yaml.safe_dump(spec))
    return folder / "dataset.yaml"


def test_from_failures_to_the_rule_that_catches_them(mm: Run, notes: Path, tmp_path: Path) -> None:
    loaded(mm("register", notes, "--json"))
    assert mm("failures", "ponds@v1").stdout.strip() == "no failures of ponds@v1"
    assert json.loads(mm("redrive", "ponds@v1", "--json").stdout) == {
        "dataset_version": "ponds@v1",
        "cells": [],
    }
    loaded(mm("backfill", "ponds@v1", "--json"))
    events = loaded(mm("failures", "ponds@v1", "--json"))
    assert len(events) == STUBS + BROKEN
    assert {event["error_class"] for event in events} == {"unsupported_format", "wrong_modality"}
    assert (
        loaded(mm("failures", "ponds@v1", "--class", "unsupported_format", "--stage", "raw_assets", "--json"))
        == []
    )

    told = mm("failures", "ponds@v1").stdout
    assert f"{STUBS + BROKEN} failures of ponds@v1, by cause" in told
    assert "unsupported_format" in told
    assert "mm redrive ponds@v1 --class unsupported_format" in told

    broken = next(event for event in events if event["error_class"] == "wrong_modality")
    opened = loaded(
        mm("failures", "ponds@v1", "--open", broken["sample_id"], "--to", tmp_path / "seen", "--json")
    )
    assert (tmp_path / "seen").read_bytes() == (notes.parent / "notes" / "broken.txt").read_bytes()
    assert (opened["origin"], opened["content_hash"]) == ("the store, hash verified", broken["content_hash"])
    one_line_error(
        mm("failures", "ponds@v1", "--open", broken["sample_id"], "--to", tmp_path / "seen"), "exists", "--to"
    )
    one_line_error(mm("failures", "ponds@v1", "--open", "0" * 32), "has failed")
    one_line_error(mm("failures", "ponds@v1", "--stage", "probe"), "'probe'", "sample_metadata")

    again = loaded(mm("redrive", "ponds@v1", "--class", "unsupported_format", "--json"))["cells"][0]
    assert (again["tried"], again["passed"], again["failed"], again["status"]) == (
        STUBS,
        0,
        STUBS,
        "published",
    )
    assert again["run_id"]
    attempts = {
        event["error_class"]: event["attempt"] for event in loaded(mm("failures", "ponds@v1", "--json"))
    }
    assert attempts == {"unsupported_format": 2, "wrong_modality": 1}
    told = mm("redrive", "ponds@v1", "--class", "unsupported_format").stdout
    assert f"all {STUBS} retried failures failed again" in told
    assert "published" not in told
    one_line_error(mm("redrive", "ponds@v1", "--class", "nonsense"), "unsupported_format in sample_metadata")

    proposed = loaded(mm("failures", "ponds@v1", "--suggest", "--json"))
    (cause,) = proposed["causes"]
    assert (cause["error_class"], cause["samples"], cause["rule"]["caught"], cause["rule"]["wrong"]) == (
        "unsupported_format",
        STUBS,
        STUBS,
        0,
    )
    assert proposed["validation"] == {"text": {"size": {"min": 3}}}
    printed = mm("failures", "ponds@v1", "--suggest").stdout
    pasted = printed[printed.index("validation:") : printed.index("text: together")]
    assert yaml.safe_load(pasted) == {"validation": proposed["validation"]}
    assert (
        f"would catch {STUBS} of {STUBS + BROKEN} failed samples, and wrongly reject 0 of {GOOD} others"
        in printed
    )

    notes.write_text(notes.read_text().replace("version: v1", "version: v2") + pasted)
    loaded(mm("register", notes, "--json"))
    plan = loaded(mm("backfill", "ponds@v2", "--plan", "--json"))["cells"][0]
    assert plan["computed"]["fetch"] + plan["reused"]["fetch"] == GOOD + BROKEN
    cell = loaded(mm("backfill", "ponds@v2", "--json"))["cells"][0]
    assert (cell["status"], cell["computed"]["fetch"], cell["reused"]["fetch"]) == (
        "published",
        0,
        GOOD + BROKEN,
    )
    status = loaded(mm("status", "ponds@v2", "--json"))["cells"][0]
    assert status["failures"] == {"rejected_by_rule": STUBS, "wrong_modality": 1}
    assert (status["published"], status["failed"]) == (GOOD, STUBS + BROKEN)
    caught = loaded(mm("failures", "ponds@v2", "--class", "rejected_by_rule", "--json"))
    assert {(event["stage"], event["message"]) for event in caught} == {
        ("raw_assets", "size is 2; allowed is min: 3 (validation.text.size)")
    }
    decided = mm("redrive", "ponds@v2", "--class", "rejected_by_rule")
    assert (decided.returncode, "nothing to redrive" in decided.stdout) == (0, True)


def test_all_error_classes_are_listed(mm: Run) -> None:
    listed = {item["name"]: item for item in loaded(mm("failures", "--classes", "--json"))}
    assert list(listed["store_error"]) == ["name", "meaning", "transient", "action"]
    assert {name for name, item in listed.items() if item["transient"]} == {"fetch_error", "store_error"}
    assert {"truncated", "http_NNN", "contract_violation"} <= set(listed)
    printed = mm("failures", "--classes")
    assert printed.returncode == 0, printed.stderr
    assert all(name in printed.stdout for name in listed)
    without = mm("failures")
    assert (without.returncode, without.stdout) == (2, "")
    assert "DATASET@VERSION" in without.stderr


def test_commands_that_an_error_class_names_exist() -> None:
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    for item in error_classes():
        for line in re.findall(r"`mm ([^`]+)`", item.action):
            name, *words = line.split()
            options = {option for parameter in commands[name].params for option in parameter.opts}
            assert {word for word in words if word.startswith("-")} <= options, line


def test_a_rule_on_what_the_probe_measures_rejects_after_it(mm: Run, notes: Path) -> None:
    notes.write_text(notes.read_text() + "validation: {text: {mime: {none_of: [text/plain]}}}\n")
    loaded(mm("register", notes, "--json"))
    blocked = mm("backfill", "ponds@v1", "--json")
    assert blocked.returncode == 1
    reason = json.loads(blocked.stdout)["cells"][0]["reason"]
    assert "100.0%" in reason
    assert "--override-gate REASON" in reason
    caught = loaded(mm("failures", "ponds@v1", "--class", "rejected_by_rule", "--json"))
    assert {event["stage"] for event in caught} == {"validated_samples"}
    assert len(caught) == GOOD
    notes.write_text(notes.read_text().replace("version: v1", "version: v2").replace("mime:", "colour:"))
    one_line_error(mm("register", notes), "validation.text.colour", "language")
