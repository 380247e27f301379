"""Lost and damaged blobs are fetched again; those that cannot be are failures of their own samples."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from mm_assets.operations.backfill import register_partition
from mm_assets.operations.status import cell_status
from tests.assets.cells.test_gates import run_one
from tests.assets.conftest import platforms
from tests.conftest import write_dataset

STAGES_OF_PUBLISH = ("feature_views", "lineage_report")


@pytest.fixture
def root(templates: Any, photos: dict[str, Path]) -> Path:
    """The folder of a platform that published the photos of ``tiny@v1``, with their dataset."""

    def publish(root: Path) -> None:
        with platforms() as make:
            platform = make(root)
            platform.register(write_dataset(root / "data", photos))
            assert platform.backfill("tiny@v1", "image")["image"].status == "published"

    folder: Path = templates.restore("photos", publish)
    return folder


@pytest.fixture
def mine(root: Path, new_platform: Any) -> Any:
    return new_platform(root)


def packs(platform: Any) -> list[Path]:
    return sorted(Path(platform.settings.store).glob("blobs/packs/*.pack"))


def lose_packs(platform: Any) -> None:
    for pack in packs(platform):
        pack.unlink()


def flip_packs(platform: Any) -> None:
    for pack in packs(platform):
        data = bytearray(pack.read_bytes())
        for place in range(0, len(data), 1000):
            data[place] ^= 0xFF
        pack.write_bytes(bytes(data))


def test_lost_blobs_are_fetched_again(mine: Any) -> None:
    pin = mine.registry.pins.get(mine.cell("tiny@v1", "image"))
    lose_packs(mine)
    result = mine.backfill("tiny@v1", "image")["image"]
    assert result.status == "published"
    assert result.computed["fetch"] == 3
    assert packs(mine)
    assert mine.registry.pins.get(mine.cell("tiny@v1", "image")) == pin, "readers see no change"
    assert mine.backfill("tiny@v1", "image")["image"].status == "unchanged"


def test_damaged_blobs_are_fetched_again_by_the_next_backfill(mine: Any) -> None:
    """A probe without its cache reads the bytes, and reports the damage."""
    flip_packs(mine)
    cell = mine.cell("tiny@v1", "image")
    for folder in Path(mine.settings.store).glob("cache/probe-image"):
        shutil.rmtree(folder)
    before = mine.catalog.tables.state("sample_metadata", cell)
    shutil.rmtree(Path(mine.settings.store) / "stages" / "sample_metadata")
    broken = mine.backfill("tiny@v1", "image")["image"]
    assert broken.status == "blocked"
    events = mine.catalog.failures.read(cell).read_all().to_pylist()
    assert {event["error_class"] for event in events} == {"blob_damaged"}
    assert all(event["retryable"] and event["sample_id"] for event in events)
    written = mine.catalog.tables.state("sample_metadata", cell)
    assert written.table != before.table, "refs name versions of the lost table"
    result = mine.backfill("tiny@v1", "image")["image"]
    assert result.status == "published", result.reason
    assert result.computed["fetch"] == 3
    assert cell_status(mine.catalog, cell)["failures"] == {"truncated": 1}
    assert mine.catalog.tables.state("sample_metadata", cell).table == written.table


def test_what_the_doctor_finds_is_fetched_again(mine: Any, mm: Any) -> None:
    """No run reads the damaged bytes; the next backfill still repairs them, and publishes nothing new."""
    pin = mine.registry.pins.get(mine.cell("tiny@v1", "image"))
    sound = mm("doctor", "--verify", "--json", MM_STORE=mine.settings.store)
    assert (sound.returncode, json.loads(sound.stdout)["bad"]) == (0, [])
    flip_packs(mine)
    found = mm("doctor", "--verify", "--json", MM_STORE=mine.settings.store)
    assert found.returncode == 1
    assert {bad["cause"] for bad in json.loads(found.stdout)["bad"]} == {"blob_damaged"}
    assert json.loads(found.stdout)["blobs"] == 0
    result = mine.backfill("tiny@v1", "image")["image"]
    assert result.computed["fetch"] == 3
    assert mine.registry.pins.get(mine.cell("tiny@v1", "image")) == pin
    assert mine.backfill("tiny@v1", "image")["image"].status == "unchanged"
    again = mm("doctor", "--verify", MM_STORE=mine.settings.store)
    assert again.returncode == 0, again.stdout
    assert "3 blobs" in again.stdout


def test_collected_garbage_costs_a_cell_nothing(mine: Any, mm: Any) -> None:
    before = packs(mine)
    mine.catalog.blobs.put([os.urandom(5_000_000)])
    for _ in range(2):
        done = mm("gc", "--older-than-days", 0, "--json", MM_STORE=mine.settings.store)
        assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["removed"] == 1
    assert packs(mine) == before
    assert mine.backfill("tiny@v1", "image")["image"].status == "unchanged"


def test_what_the_source_no_longer_gives_fails_alone(mine: Any, root: Path) -> None:
    lose_packs(mine)
    (root / "data" / "photos" / "temple" / "1.jpg").unlink()
    result = mine.backfill("tiny@v1", "image", override="the temple is gone")["image"]
    assert result.status == "published", result.reason
    counts = cell_status(mine.catalog, mine.cell("tiny@v1", "image"))
    assert (counts["published"], counts["failed"], counts["failures"]) == (
        1,
        2,
        {"truncated": 1, "blob_missing": 1},
    )
    (event,) = [
        e
        for e in mine.catalog.failures.read(mine.cell("tiny@v1", "image")).read_all().to_pylist()
        if e["retryable"]
    ]
    assert event["source_uri"].endswith("temple/1.jpg")
    assert event["sample_id"]


def test_a_kill_between_the_pin_and_its_stage_publishes_once(mine: Any) -> None:
    cell = mine.cell("tiny@v1", "image")
    pin = mine.registry.pins.get(cell)
    for stage in STAGES_OF_PUBLISH:  # the state after a kill right behind the pin
        shutil.rmtree(Path(mine.settings.store) / "stages" / stage)
    assert mine.backfill("tiny@v1", "image")["image"].status == "published"
    assert mine.registry.pins.get(cell) == pin
    (row,) = mine.catalog.tables.read("feature_views", cell).read_all().to_pylist()
    assert row["pin"] == pin.number == 1


def test_status_of_a_cell_whose_run_died_balances(platform: Any, dataset: Path) -> None:
    platform.register(dataset)
    cell = platform.cell("tiny@v1", "image")
    register_partition(platform.instance, "tiny@v1")
    for asset in ("dataset_registry", "raw_assets", "content_blobs", "sample_metadata"):
        assert run_one(platform, asset, "image").success
    counts = cell_status(platform.catalog, cell)
    assert (counts["discovered"], counts["undecided"], counts["published"]) == (3, 2, 0)
    assert (
        counts["discovered"]
        == counts["published"] + counts["dropped"] + counts["failed"] + counts["undecided"]
    )


def test_a_join_without_memory_says_which_setting(
    platform: Any, dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    platform.register(dataset)
    monkeypatch.setenv("MM_SQL_MEMORY", "300KB")
    result = platform.backfill("tiny@v1", "text")["text"]
    assert result.status == "failed"
    assert result.reason.endswith(
        "a join needs more memory than MM_SQL_MEMORY=300KB allows; set it higher"
    ), result.reason
    monkeypatch.delenv("MM_SQL_MEMORY")
    assert platform.backfill("tiny@v1", "text")["text"].status == "published"
