"""The sensor `sources`: when it checks, and when it proposes or registers a next version."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from mm_assets.automation.source_sensor import sources
from mm_assets.cells.partitions import DATASET_VERSION
from mm_assets.definitions import build
from mm_embed_kernels.spec.dataset_spec import DatasetSpec, parse_spec
from mm_resources.resources import CatalogResource, StoreResource

REGISTRY = dg.AssetKey("dataset_registry")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "notes"
    folder.mkdir()
    for name in "abc":
        (folder / f"{name}.txt").write_text(f"This is note {name} about herons.")
    return folder


def frozen(platform: Any, folder: Path, **watch: str) -> DatasetSpec:
    """Register a version and list its sources, as its first backfill does."""
    text = f"name: walks\nversion: v1\nwatch: {json.dumps(watch)}\nsources:\n  - {{name: notes, modality: text, uri: {folder}}}\n"
    spec = parse_spec(text, "here")
    platform.registry.register(spec)
    assert platform.registry.listings.freeze(spec, spec.sources[0]) == ""
    return spec


def tick(platform: Any) -> dg.SensorResult:
    resources = {"mm_catalog": CatalogResource(store=StoreResource(root=platform.settings.store))}
    with dg.build_sensor_context(instance=platform.instance, resources=resources) as context:
        found = sources(context)
    assert isinstance(found, dg.SensorResult)
    return found


def take(platform: Any, found: dg.SensorResult) -> None:
    """Apply a tick's result as the daemon does."""
    for event in found.asset_events:
        platform.instance.report_runless_asset_event(event)
    for added in found.dynamic_partitions_requests or []:
        platform.instance.add_dynamic_partitions(DATASET_VERSION, list(added.partition_keys))
    for request in found.run_requests or []:
        if request.job_name == "look":
            job = build(store=platform.settings.store, mode="inline").resolve_job_def("look")
            assert job.execute_in_process(instance=platform.instance, run_config=request.run_config).success


def asked(found: dg.SensorResult) -> list[tuple[str | None, str | None]]:
    return [(request.job_name, request.partition_key) for request in found.run_requests or []]


CHECK = [("look", None)]


def pass_time(platform: Any, spec: DatasetSpec, hours: float = 1) -> None:
    """Move the last check back in time."""
    path = Path(platform.settings.store, "registry", "drift", spec.name, spec.version, "notes.json")
    drift = json.loads(path.read_text())
    for name in ("looked_at", "since"):
        drift[name] = (datetime.fromisoformat(drift[name]) - timedelta(hours=hours)).isoformat()
    path.write_text(json.dumps(drift))


def check_later(platform: Any, spec: DatasetSpec) -> None:
    """Let time pass, and run the check that is due then."""
    pass_time(platform, spec)
    found = tick(platform)
    assert asked(found) == CHECK
    take(platform, found)


def check(platform: Any) -> tuple[bool, str]:
    key = dg.AssetCheckKey(REGISTRY, "sources_unchanged")
    record = platform.instance.event_log_storage.get_asset_check_execution_history(key, limit=1)[0]
    evaluation = record.evaluation
    assert evaluation.partition == "walks@v1|text"
    return evaluation.passed, evaluation.description


def test_nothing_is_checked_unless_the_spec_says_so(platform: Any, folder: Path) -> None:
    frozen(platform, folder)
    found = tick(platform)
    assert asked(found) == []
    assert found.skip_reason is not None


def test_a_version_that_was_never_listed_is_left_alone(platform: Any, folder: Path) -> None:
    text = f"name: walks\nversion: v1\nwatch: {{sources: register}}\nsources: [{{name: notes, modality: text, uri: {folder}}}]\n"
    platform.registry.register(parse_spec(text, "here"))
    assert asked(tick(platform)) == []


def test_propose(platform: Any, folder: Path) -> None:
    spec = frozen(platform, folder, sources="propose", every="1h", settle="10min")
    first, same = tick(platform), tick(platform)
    assert asked(first) == CHECK
    assert [each.run_key for each in first.run_requests or []] == [
        each.run_key for each in same.run_requests or []
    ], "Dagster starts it once"
    take(platform, first)
    assert check(platform) == (True, "the sources are as they were listed")
    assert asked(tick(platform)) == [], "the next check is due in an hour"
    (folder / "d.txt").write_text("A late note about egrets.")
    check_later(platform, spec)
    passed, told = check(platform)
    line = (
        "source notes: 1 added (d.txt) since walks@v1 was frozen; next: mm register --from walks@v1 --as v2"
    )
    assert (passed, told) == (False, line)
    assert tick(platform).asset_events == [], "somebody may be at work on the source"
    (folder / "e.txt").write_text("Another one, while the first had not settled.")
    check_later(platform, spec)
    assert tick(platform).asset_events == []
    check_later(platform, spec)
    proposed, twin = tick(platform), tick(platform)
    assert len(proposed.asset_events) == len(twin.asset_events) == 1
    take(platform, proposed)
    (event,) = platform.instance.fetch_observations(REGISTRY, limit=10).records
    observation = event.asset_observation
    assert observation.partition == "walks@v1|text"
    assert observation.metadata["next"].value == "`mm register --from walks@v1 --as v2`"
    assert "2 added (d.txt, e.txt)" in observation.metadata["drift"].value
    assert tick(platform).asset_events == [], "said once"
    check_later(platform, spec)
    assert tick(platform).asset_events == []
    assert platform.registry.datasets() == ["walks@v1"]
    (folder / "f.txt").write_text("And one more.")
    check_later(platform, spec)
    check_later(platform, spec)
    assert len(tick(platform).asset_events) == 1, "another drift is another proposal"


def test_register(platform: Any, folder: Path) -> None:
    spec = frozen(platform, folder, sources="register", every="1h", settle="10min")
    take(platform, tick(platform))
    (folder / "d.txt").write_text("A late note about egrets.")
    check_later(platform, spec)
    assert platform.registry.datasets() == ["walks@v1"]
    check_later(platform, spec)
    registered = tick(platform)
    assert asked(registered) == [("refresh", "walks@v2|text")]
    assert len(registered.asset_events) == 1
    following = platform.registry.registration("walks", "v2")
    assert (following.spec.parent, following.spec.watch, following.by) == ("v1", spec.watch, "watch")
    # The daemon died before it applied the tick's result: the next tick requests the same runs.
    again = tick(platform)
    assert platform.registry.datasets() == ["walks@v1", "walks@v2"]
    assert [each.run_key for each in again.run_requests or []] == [
        each.run_key for each in registered.run_requests or []
    ]
    take(platform, again)
    assert platform.instance.get_dynamic_partitions(DATASET_VERSION) == ["walks@v2"]
    assert platform.backfill("walks@v2")["text"].status == "published"
    assert asked(tick(platform)) == []
    assert platform.features.training_set("walks@v2", modality="text").to_arrow().num_rows == 4


def test_two_ticks_that_saw_the_same_register_one_version(platform: Any, folder: Path) -> None:
    from mm_assets.automation.source_sensor import _follow_sources

    spec = frozen(platform, folder, sources="register", settle="10min", names="date")
    platform.registry.drifts.check(spec, spec.sources[0])
    (folder / "a.txt").unlink()
    platform.registry.drifts.check(spec, spec.sources[0])
    pass_time(platform, spec)
    platform.registry.drifts.check(spec, spec.sources[0])
    (newest,) = platform.registry.newest_versions()
    made = {_follow_sources(platform.registry, newest)[0].spec.dataset_version for _ in range(2)}
    assert len(made) == 1
    assert platform.registry.datasets() == sorted(["walks@v1", *made])


@pytest.mark.parametrize("left", ["empty", "gone"])
def test_a_source_that_vanished_is_no_version_to_follow(platform: Any, folder: Path, left: str) -> None:
    spec = frozen(platform, folder, sources="register", settle="10min")
    take(platform, tick(platform))
    for path in folder.iterdir():
        path.unlink()
    if left == "gone":
        folder.rmdir()
    for _ in range(3):
        check_later(platform, spec)
    assert platform.registry.datasets() == ["walks@v1"]
    passed, told = check(platform)
    assert not passed
    assert told.startswith(
        f"source notes: {'lists nothing any more at' if left == 'empty' else 'cannot be listed any more'}"
    )
    assert "mm register" not in told


def test_only_the_newest_version_is_watched(platform: Any, folder: Path) -> None:
    frozen(platform, folder, sources="register", settle="10min")
    text = f"name: walks\nversion: other\nsources: [{{name: notes, modality: text, uri: {folder}}}]\n"
    platform.registry.register(parse_spec(text, "here"))
    assert asked(tick(platform)) == []
