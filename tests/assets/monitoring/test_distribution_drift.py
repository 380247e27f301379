"""The report of a version names drift from its parent and from production, by the limits of its spec."""

from __future__ import annotations

import base64
import io
import json
import random
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import numpy as np
import pytest

from mm_assets.operations.promotion import promote
from mm_embed_kernels.spec.thresholds import DriftLimits
from mm_resources.monitoring.distribution_drift import _number_drift, distribution_drifts
from mm_resources.tables.stage_refs import StageMeta
from tests.assets.conftest import Platform, drawn, platforms
from tests.assets.operations.test_promotion import SPEC
from tests.assets.retrieval.test_training_set import WORDS


def publish(
    platform: Platform,
    folder: Path,
    version: str,
    rivers: int,
    bread: int,
    words: int,
    more: str = "",
    broken: int = 0,
    dagster: bool = False,
) -> str:
    dice = random.Random(version)
    rows = [
        {
            "id": f"{topic}-{version}-{i}",
            "text": " ".join(dice.sample(WORDS[topic].split(), words)),
            "topic": topic,
        }
        for topic, count in (("rivers", rivers), ("bread", bread))
        for i in range(count)
    ]
    (folder / "notes.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n" + "{broken\n" * broken)
    (folder / f"{version}.yaml").write_text(SPEC.format(version=version) + more)
    name = platform.register(folder / f"{version}.yaml")
    assert platform.backfill(name, dagster=dagster)["text"].status == "published"
    return name


@pytest.fixture(scope="module")
def notes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Platform, Path]]:
    folder = tmp_path_factory.mktemp("distribution_drifts")
    with platforms() as make:
        platform = make(folder)
        publish(platform, folder, "v1", 60, 60, 10)
        publish(platform, folder, "v2", 62, 58, 10, "parent: v1\n")
        promote(platform.catalog, "notes@v1", "production")
        with drawn():
            publish(platform, folder, "v3", 120, 20, 20, "parent: v2\n", broken=35, dagster=True)
        yield platform, folder


def report(platform: Platform, version: str) -> StageMeta:
    meta = platform.catalog.tables.meta("lineage_report", platform.cell(version, "text"))
    assert meta is not None
    return meta


def drift(platform: Platform, version: str) -> tuple[bool, str, dict[str, object]]:
    meta = report(platform, version)
    (check,) = [check for check in meta.checks if check["name"] == "drift"]
    return check["passed"], check["description"], meta.summary


@pytest.mark.parametrize(
    ("asset", "name"),
    [
        ("lineage_report", "funnel"),
        ("lineage_report", "cost"),
        ("lineage_report", "drift"),
        ("curated_samples", "signals"),
        ("feature_views", "vectors"),
    ],
)
def test_pages_hold_plots(notes: tuple[Platform, Path], asset: str, name: str) -> None:
    from PIL import Image

    event = notes[0].instance.get_latest_materialization_event(dg.AssetKey(asset))
    assert event is not None
    assert event.asset_materialization is not None
    text = str(event.asset_materialization.metadata[name].value)
    with Image.open(io.BytesIO(base64.b64decode(text.split("base64,")[1].rstrip(")")))) as picture:
        assert picture.format == "PNG"
        assert picture.width > 300


def test_the_first_version_has_nothing_to_drift_from(notes: tuple[Platform, Path]) -> None:
    assert drift(notes[0], "notes@v1")[:2] == (True, "there is no version to compare with")


def test_a_like_version_has_not_drifted(notes: tuple[Platform, Path]) -> None:
    passed, told, summary = drift(notes[0], "notes@v2")
    assert (passed, told) == (True, "no drift")
    assert str(summary["drift against notes@v1"]).startswith("labels 0.017 of 0.2")


def test_each_kind_of_drift_is_named_against_both(notes: tuple[Platform, Path]) -> None:
    platform, _ = notes
    passed, told, summary = drift(platform, "notes@v3")
    assert not passed
    for against in ("notes@v2", "notes@production"):
        assert f"drift against {against}" in summary
        for kind in (
            "labels (",
            "decisions (uncertain_language)",
            "failures (bad_record)",
            "signals (words)",
            "vectors (cosine",
        ):
            assert any(line.startswith(kind) and f" against {against}: " in line for line in told.split("; "))
    assert "drift" in report(platform, "notes@v3").plots
    assert platform.features.published("notes@v3", "text").number == 1, "drift does not block the publish"


def test_a_spec_sets_its_limits(notes: tuple[Platform, Path]) -> None:
    platform, _ = notes
    before, after = (platform.features.published(f"notes@{version}", "text") for version in ("v1", "v3"))
    wide = DriftLimits(
        max_label_shift=1, max_decision_shift=1, max_failure_shift=1, max_signal_shift=1, max_vector_shift=1
    )
    assert all(shift.is_within_limit for shift in distribution_drifts(platform.catalog, before, after, wide))
    narrow = DriftLimits(
        max_label_shift=0, max_decision_shift=0, max_failure_shift=0, max_signal_shift=0, max_vector_shift=0
    )
    same = list(distribution_drifts(platform.catalog, before, before, narrow))
    assert {shift.kind for shift in same} == {"labels", "decisions", "failures", "signals", "vectors"}
    assert all(shift.value == 0 for shift in same)


def test_chance_is_no_drift() -> None:
    dice = np.random.default_rng(0)
    found = [
        _number_drift("v1", "signals", "x", dice.normal(size=40), dice.normal(size=40), 0.0).is_within_limit
        for _ in range(200)
    ]
    assert sum(found) >= 190
    assert not _number_drift(
        "v1", "signals", "x", dice.normal(size=400), dice.normal(1, size=400), 0.0
    ).is_within_limit
    assert _number_drift(
        "v1", "signals", "x", np.array([1.0, 2, 3]), np.array([1.0, 2, 3, 4]), 0.0
    ).value == pytest.approx(0.25)
