"""A source that lists nothing or does not answer blocks its cell with one line; earlier pins are still served."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from mm_assets.operations.status import dataset_status
from mm_embed_kernels.spec.dataset_spec import load_spec
from mm_embed_kernels.spec.next_version import successor

FAILURE = ["error_class", "message", "stage", "sample_id"]


def closed_port(folder: Path) -> str:
    return "s3://bucket/notes"


def emptied(folder: Path) -> str:
    for path in folder.iterdir():
        path.unlink()
    return str(folder)


def vanished(folder: Path) -> str:
    shutil.rmtree(folder)
    return str(folder)


# The URI of the source after a change, and the reported line.
WORLDS = [
    ("v2", closed_port, "source notes cannot be listed: "),
    ("v3", lambda folder: "https://host.invalid/notes/", "source notes cannot be listed: "),
    ("v4", emptied, "source notes lists nothing at {folder}; mend the path or set allow_empty: true"),
    ("v5", vanished, "source notes cannot be listed: {folder} does not exist"),
]


def test_the_cell_is_blocked_and_the_last_good_version_is_served(
    platform: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {
        "ACCESS_KEY_ID": "x",
        "SECRET_ACCESS_KEY": "x",
        "ENDPOINT_URL": "http://127.0.0.1:1",
        "MAX_ATTEMPTS": "1",
    }.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    folder = tmp_path / "notes"
    folder.mkdir()
    (folder / "a.txt").write_text("A heron stands in the shallow water at dusk.")
    (tmp_path / "spec.yaml").write_text(
        "name: walks\nversion: v1\nsources: [{name: notes, modality: text, uri: notes}]\n"
    )
    first = load_spec(tmp_path / "spec.yaml")
    platform.registry.register(first)
    assert platform.backfill("walks@v1")["text"].status == "published"
    for version, change, told in WORLDS:
        line = told.format(folder=folder)
        uri = change(folder)
        following = successor(first, version)
        platform.registry.register(
            following.model_copy(update={"sources": [first.sources[0].model_copy(update={"uri": uri})]})
        )
        result = platform.backfill(f"walks@{version}", dagster=True)["text"]
        assert result.status == "blocked", (version, result)
        assert result.reason.startswith(f"dataset_registry: {line}")
        assert "\n" not in result.reason
        assert "Traceback" not in result.reason
        (cell,) = dataset_status(platform.catalog, f"walks@{version}")["cells"]
        assert cell["blocked"].startswith(f"dataset_registry: {line}")
        (event,) = (
            platform.catalog.failures.read_all([platform.cell(f"walks@{version}", "text")], FAILURE)
            .read_all()
            .to_pylist()
        )
        assert (event["error_class"], event["stage"], event["sample_id"]) == (
            "source_unlisted",
            "dataset_registry",
            None,
        )
        assert event["message"].startswith(line)
        checks = {
            log.dagster_event.asset_check_evaluation_data.check_name: log.dagster_event.asset_check_evaluation_data
            for log in platform.instance.all_logs(result.run_id)
            if log.dagster_event and log.dagster_event.event_type_value == "ASSET_CHECK_EVALUATION"
        }
        assert not checks["sources_listed"].passed
        assert checks["sources_listed"].blocking
        assert checks["sources_listed"].description.startswith(line)
    found = platform.features.training_set("walks@v1", modality="text").to_arrow()
    assert found.num_rows == 1
    # The source is back: the same command continues.
    folder.mkdir()
    (folder / "b.txt").write_text("An egret came later.")
    assert platform.backfill("walks@v5")["text"].status == "published"
    assert dataset_status(platform.catalog, "walks@v5")["cells"][0]["published"] == 1
