"""A closed gate blocks the publish, however it is tried, and what was published stays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from mm_assets.cells.partitions import partition_key
from mm_assets.cli.status import _print_obstacles
from mm_assets.definitions import build
from mm_assets.operations.backfill import cell_result, register_partition
from mm_assets.operations.status import cell_status
from mm_embed_kernels.contracts.pipeline import STAGES


@pytest.fixture
def strict(platform: Any, dataset: Path) -> Any:
    dataset.write_text(dataset.read_text().replace("max_failed_share: 0.5", "max_failed_share: 0.1"))
    platform.register(dataset)
    return platform


def run_one(platform: Any, asset: str, modality: str) -> dg.ExecuteInProcessResult:
    register_partition(platform.instance, "tiny@v1")
    definitions = build(store=platform.settings.store, mode="inline")
    job = definitions.resolve_implicit_global_asset_job_def()
    return job.execute_in_process(
        instance=platform.instance,
        partition_key=partition_key(platform.cell("tiny@v1", modality)),
        asset_selection=[dg.AssetKey(asset)],
        raise_on_error=False,
        run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
    )


def test_too_many_failures_close_the_gate(strict: Any) -> None:
    result = strict.backfill("tiny@v1", "text")["text"]
    assert result.status == "blocked"
    assert "33.3%" in result.reason
    assert "max_failed_share" in result.reason
    cell = strict.cell("tiny@v1", "text")
    assert strict.registry.pins.get(cell) is None
    counts = cell_status(strict.catalog, cell)
    # Nothing has dropped the two good samples: they wait.
    assert (counts["discovered"], counts["undecided"], counts["failed"]) == (3, 2, 1)
    assert (counts["published"], counts["dropped"]) == (0, 0)


def test_starting_downstream_by_hand_does_not_pass(strict: Any) -> None:
    strict.backfill("tiny@v1", "text")
    for asset in STAGES[5:]:
        done = run_one(strict, asset, "text")
        assert not done.success
        failed = [event.step_failure_data for event in done.all_events if event.is_step_failure]
        assert "the gate of validated_samples is closed" in failed[0].user_failure_data.description
        assert strict.catalog.tables.meta(asset, strict.cell("tiny@v1", "text")) is None


def test_override_publishes_and_records_the_reason(strict: Any) -> None:
    strict.backfill("tiny@v1", "text")
    result = strict.backfill("tiny@v1", "text", override="the bad line is known", dagster=True)["text"]
    assert result.status == "published"
    pin = strict.registry.pins.get(strict.cell("tiny@v1", "text"))
    assert pin.override == "the bad line is known"
    assert strict.features.search("a cat", dataset_version="tiny@v1", modality="text", k=1).num_rows == 1
    again = strict.backfill("tiny@v1", "text", dagster=True)["text"]
    assert again.status == "unchanged"
    status = cell_status(strict.catalog, strict.cell("tiny@v1", "text"))
    assert status["override"] == "the bad line is known"
    assert {(each["stage"], each["name"]) for each in status["overrides"]} >= {
        ("validated_samples", "failed_share")
    }
    for run_id in (result.run_id, again.run_id):
        shown = failed_share(strict, run_id)
        assert not shown.passed  # the truth, although the run went on
        assert shown.severity == dg.AssetCheckSeverity.WARN
        assert shown.description.startswith("overridden: ")


def failed_share(platform: Any, run_id: str) -> Any:
    """What Dagster was told of the gate in a run."""
    logs = platform.instance.all_logs(run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION)
    found = [log.dagster_event.asset_check_evaluation_data for log in logs]
    return next(
        item
        for item in found
        if item.check_name == "failed_share" and item.asset_key == dg.AssetKey("validated_samples")
    )


def test_a_gate_that_an_earlier_run_closed_is_named_as_such(strict: Any) -> None:
    """The cause of this run, not of another: a cell whose first gate breaks does not blame the second one."""
    strict.backfill("tiny@v1", "text")
    done = run_one(strict, "segments", "text")
    assert not done.success
    run = strict.instance.get_run_by_id(done.run_id)
    result = cell_result(strict.instance, strict.catalog, strict.cell("tiny@v1", "text"), run, 0.0)
    assert result.status == "blocked"
    assert result.reason.startswith("segments: the gate of validated_samples is closed")


def test_a_source_that_lists_nothing_blocks_its_cell_only(platform: Any, dataset: Path) -> None:
    dataset.write_text(dataset.read_text().replace("photos/**/*.jpg", "photos/**/*.tiff"))
    platform.register(dataset)
    results = platform.backfill("tiny@v1")
    assert results["image"].status == "blocked"
    assert "source photos lists nothing" in results["image"].reason
    assert results["text"].status == "published"
    for photo in (dataset.parent / "photos").rglob("1.jpg"):
        photo.rename(photo.with_suffix(".tiff"))
    assert platform.backfill("tiny@v1", "image")["image"].status == "published"


def test_an_overridden_source_is_told(
    platform: Any, dataset: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset.write_text(
        dataset.read_text().replace(
            "sources:\n", "sources:\n  - {name: more, modality: image, uri: nowhere/*.jpg}\n", 1
        )
    )
    platform.register(dataset)
    assert platform.backfill("tiny@v1", "image")["image"].status == "blocked"
    result = platform.backfill("tiny@v1", "image", override="it comes later")["image"]
    assert result.status == "published"
    state = cell_status(platform.catalog, platform.cell("tiny@v1", "image"))
    (told,) = [each for each in state["overrides"] if each["name"] == "sources_listed"]
    assert told["stage"] == "dataset_registry"
    assert told["description"].startswith("source more cannot be listed")
    _print_obstacles("tiny@v1", state)
    assert (
        "image: sources_listed of dataset_registry overridden (it comes later): source more"
        in capsys.readouterr().out
    )


def test_unlisted_source_may_be_allowed(platform: Any, dataset: Path) -> None:
    dataset.write_text(
        dataset.read_text().replace('photos/**/*.jpg",', 'photos/**/*.tiff", allow_empty: true,')
    )
    platform.register(dataset)
    assert platform.backfill("tiny@v1", "image")["image"].status == "published"


def test_the_event_log_holds_no_content(platform: Any, dataset: Path) -> None:
    platform.register(dataset)
    platform.backfill("tiny@v1", "text")
    platform.instance.dispose()
    secret = b"The cat sleeps"
    holding = [
        path
        for path in platform.settings.dagster_home.rglob("*")
        if path.is_file() and secret in path.read_bytes()
    ]
    assert holding == []
