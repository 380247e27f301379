"""The workflows: actions by the hash of their commit, no more rights than reading, an audit and a bill of materials."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def steps(path: Path) -> list[dict[str, Any]]:
    return [step for job in yaml.safe_load(path.read_text("utf-8"))["jobs"].values() for step in job["steps"]]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_actions_are_pinned_by_commit(path: Path) -> None:
    used = [
        line.partition("uses:")[2].strip() for line in path.read_text("utf-8").splitlines() if "uses:" in line
    ]
    assert used
    for action in used:
        assert re.fullmatch(r"[\w.-]+/[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", action), action


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_workflows_may_read_alone(path: Path) -> None:
    workflow = yaml.safe_load(path.read_text("utf-8"))
    assert workflow["permissions"] == {"contents": "read"}
    assert "pull_request_target" not in path.read_text("utf-8")
    for job in workflow["jobs"].values():
        assert "permissions" not in job
        assert job["timeout-minutes"] > 0
    for step in steps(path):
        if step.get("uses", "").startswith("actions/checkout@"):
            assert step["with"]["persist-credentials"] is False
        # A title or a branch of a pull request is text of a stranger.
        assert "${{" not in step.get("run", "")


def test_the_audit_and_the_bill_of_materials_run() -> None:
    commands = [step.get("run") for path in WORKFLOWS for step in steps(path)]
    assert {"make audit", "make sbom", "make check", "make test"} <= set(commands)
    make = (ROOT / "Makefile").read_text("utf-8")
    assert "pip-audit --strict --disable-pip --require-hashes --requirement requirements-dev.txt" in make
    assert "cyclonedx-py requirements requirements.txt" in make
