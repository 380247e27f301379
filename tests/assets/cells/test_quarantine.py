"""Gates for the cell, for single causes and against the parent version: which threshold, by how much, and how to pass."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from mm_assets.cells.checks import closed_gates
from mm_assets.cells.gates import GATES, gate_checks, override_command
from mm_assets.operations.status import cell_status
from mm_embed_kernels.spec.dataset_spec import load_spec
from mm_embed_kernels.spec.thresholds import Gates
from mm_resources.cell import Cell
from tests.assets.maintenance.test_repair import lose_packs

CELL = Cell("tiny", "v2", "image")


def verdicts(
    discovered: int,
    failed: int,
    by_class: dict[str, int] | None = None,
    before: float | None = None,
    **limits: Any,
) -> dict[str, Any]:
    checks = gate_checks(Gates(**limits), discovered, failed, by_class or {}, "v1", before)
    assert tuple(check.name for check in checks) == GATES
    return {check.name: check for check in checks}


def test_the_share_of_the_cell() -> None:
    shut = verdicts(200, 50)["failed_share"]
    assert not shut.passed
    assert (
        shut.description
        == "50 of 200 samples failed: 25.0%, allowed are 20.0%, 5.0 points too many (gates.max_failed_share)"
    )
    assert shut.figures == {"failed": 50, "discovered": 200, "share": 0.25, "threshold": 0.2}
    assert verdicts(200, 40)["failed_share"].passed, "a threshold is part of what is allowed"
    assert verdicts(0, 0)["failed_share"].passed


def test_the_share_of_one_cause() -> None:
    limits = {"max_failed_share_by_class": {"timeout": 0.0, "truncated": 0.1}}
    shut = verdicts(200, 30, {"truncated": 29, "timeout": 1}, **limits)["failed_share_by_class"]
    assert not shut.passed
    assert (
        "1 of 200 samples failed as timeout: 0.5%, allowed are 0.0%, 0.5 points too many" in shut.description
    )
    assert "(gates.max_failed_share_by_class.truncated)" in shut.description
    one = verdicts(200, 30, {"truncated": 29, "no_samples": 1}, **limits)["failed_share_by_class"]
    assert "timeout" not in one.description
    assert verdicts(200, 30, {"truncated": 20}, **limits)["failed_share_by_class"].passed
    assert verdicts(200, 30, {"truncated": 30})["failed_share_by_class"].passed


def test_the_share_against_the_parent_version() -> None:
    def against(before: float | None) -> Any:
        return verdicts(100, 15, before=before, max_failed_share_above_parent=0.05)[
            "failed_share_above_parent"
        ]

    assert not against(0.09).passed
    assert "15.0%, +6.0 points against v1, allowed are 5.0%, 1.0 points too many" in against(0.09).description
    assert against(0.10).passed
    assert against(0.5).passed
    assert against(None).passed, "there is nothing to compare with"


def test_only_what_a_reason_may_pass_is_offered_an_override() -> None:
    shut = closed_gates(gate_checks(Gates(), 10, 9, {}, None, None))
    assert override_command(CELL, shut) == "mm backfill tiny@v2 --modality image --override-gate REASON"
    from mm_assets.cells.checks import Check

    assert override_command(CELL, [*shut, Check("accounting", False, "does not hold")]) == ""
    assert override_command(CELL, []) == ""


def test_a_version_that_fails_more_than_its_parent_stays_out(platform: Any, dataset: Path) -> None:
    platform.register(dataset)
    assert platform.backfill("tiny@v1", "image")["image"].status == "published"
    photos = dataset.parent / "photos"
    (photos / "temple" / "cut.jpg").write_bytes((photos / "temple" / "1.jpg").read_bytes()[:8_000])
    text = dataset.read_text().replace("version: v1", "version: v2\nparent: v1")
    dataset.write_text(
        text.replace("max_failed_share: 0.5", "max_failed_share: 0.9, max_failed_share_above_parent: 0.1")
    )
    platform.register(dataset)
    result = platform.backfill("tiny@v2", "image")["image"]
    assert result.status == "blocked"
    assert (
        "2 of 4 samples failed: 50.0%, +16.7 points against v1, allowed are 10.0%, 6.7 points too many"
        in result.reason
    )
    assert result.reason.endswith(
        "to publish all the same: mm backfill tiny@v2 --modality image --override-gate REASON"
    )
    assert platform.registry.pins.get(platform.cell("tiny@v2", "image")) is None
    again = platform.backfill("tiny@v2", "image", override="two are known to be cut")["image"]
    assert again.status == "published", again.reason


def test_a_closed_gate_keeps_the_last_good_pin_and_says_the_same_everywhere(
    platform: Any, dataset: Path
) -> None:
    dataset.write_text(
        dataset.read_text().replace(
            "max_failed_share: 0.5", "max_failed_share_by_class: {blob_missing: 0}, max_failed_share: 0.9"
        )
    )
    platform.register(dataset)
    assert platform.backfill("tiny@v1", "image")["image"].status == "published"
    cell = platform.cell("tiny@v1", "image")
    pin = platform.registry.pins.get(cell)
    lose_packs(platform)
    shutil.move(dataset.parent / "photos" / "temple" / "1.jpg", dataset.parent / "away.jpg")
    result = platform.backfill("tiny@v1", "image", dagster=True)["image"]
    assert result.status == "blocked"
    assert platform.registry.pins.get(cell) == pin
    assert (
        platform.features.search("a temple", dataset_version="tiny@v1", modality="image", k=5).num_rows == 2
    )
    status = cell_status(platform.catalog, cell)
    (gate,) = [gate for gate in status["gates"] if not gate["passed"]]
    assert (gate["stage"], gate["name"]) == ("validated_samples", "failed_share_by_class")
    assert gate["description"] in result.reason
    logs = platform.instance.all_logs(result.run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION)
    told = [log.dagster_event.asset_check_evaluation_data for log in logs]
    (shown,) = [check for check in told if check.check_name == gate["name"]]
    assert (shown.passed, shown.description) == (False, gate["description"])
    assert (
        shown.metadata["blob_missing"].value
        == pytest.approx(gate["figures"]["blob_missing"])
        == pytest.approx(1 / 3)
    )
    shutil.move(dataset.parent / "away.jpg", dataset.parent / "photos" / "temple" / "1.jpg")
    assert platform.backfill("tiny@v1", "image")["image"].status in ("published", "unchanged")
    assert all(gate["passed"] for gate in cell_status(platform.catalog, cell)["gates"])


def test_spec_refuses_thresholds_that_are_no_shares(dataset: Path) -> None:
    from mm_embed_kernels.errors import UserError

    dataset.write_text(
        dataset.read_text().replace("max_failed_share: 0.5", "max_failed_share_by_class: {timeout: 5}")
    )
    with pytest.raises(UserError, match=r"gates\.max_failed_share_by_class\.timeout"):
        load_spec(dataset)
