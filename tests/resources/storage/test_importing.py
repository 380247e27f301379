"""Importing the packages changes nothing in the importing process; calling `configure_process` does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[3]
SETTINGS = {"LANCE_LOG": "error", "LANCE_DEFAULT_IO_BUFFER_SIZE": str(64 << 20)}


def changes(*entries: str, **environment: str) -> dict[str, Any]:
    """Return what importing changes in a fresh process, without this one's settings."""
    clean = {name: value for name, value in os.environ.items() if name not in SETTINGS}
    command = [sys.executable, "-m", "tests.resources.storage.process_state", *entries]
    done = subprocess.run(
        command, cwd=ROOT, env={**clean, **environment}, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.parametrize(
    "entries",
    [
        ("mm_resources:FeatureStore", "mm_assets.cli.main"),
        (
            "mm_resources.sources:sources()",
            "mm_embed_kernels.modalities:modalities()",
            "mm_embed_kernels.rules:rules()",
            "mm_embed_kernels.embedders:embedders()",
            "mm_embed_kernels.transcribers:transcribers()",
            "*",
        ),
    ],
    ids=["public", "all"],
)
def test_importing_changes_nothing(entries: tuple[str, ...]) -> None:
    assert changes(*entries) == {}


def test_a_process_is_configured_by_an_explicit_call() -> None:
    found = changes("mm_resources.storage.process:configure_process()")
    before, after = found.pop("environment")
    assert {name: value for name, value in after.items() if before.get(name) != value} == SETTINGS
    assert before.keys() <= after.keys()
    assert found.pop("memory pool")[1] == "system"
    assert found == {}


def test_the_code_location_configures_its_process() -> None:
    """What the environment sets already stays."""
    found = changes("mm_assets.definitions", LANCE_LOG="debug")
    assert found["memory pool"][1] == "system"
    assert found["environment"][1].items() >= (SETTINGS | {"LANCE_LOG": "debug"}).items()
