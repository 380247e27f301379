"""A published dataset is an asset of its own, on which others depend by its key alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dagster as dg

from mm_assets.cells.dataset_assets import dataset_key
from mm_assets.cells.dataset_reports import remove_assets, report_pin
from mm_assets.cells.dataset_verdicts import PROMOTION_GATE
from mm_resources.catalog import Catalog
from tests.assets.conftest import Run
from tests.assets.operations.test_promotion import write


def reported(platform: Any, name: str) -> list[dg.AssetMaterialization]:
    records = platform.instance.fetch_materializations(dataset_key("notes", name), limit=20).records
    return [record.asset_materialization for record in reversed(records)]


def test_each_publish_and_promotion_is_a_materialization(new_platform: Any, mm: Run, tmp_path: Path) -> None:
    platform = new_platform(tmp_path / "platform", durable=True)
    folder = tmp_path / "notes"
    folder.mkdir()
    write(platform, folder, "v1", {"rivers": 2, "bread": 2})
    platform.backfill("notes@v1")
    (first,) = reported(platform, "text")
    assert first.metadata["mm/version"].value == "v1"
    assert (first.metadata["mm/published"].value, first.metadata["dagster/row_count"].value) == (4, 4)
    assert first.metadata["dagster/uri"].value.endswith("/features/notes.v1.text.wordllama.lance")

    write(platform, folder, "v2", {"rivers": 3, "bread": 0})
    _, second = reported(platform, "text")
    assert (second.metadata["mm/version"].value, second.metadata["mm/published"].value) == ("v2", 3)
    assert first.tags["dagster/data_version"] != second.tags["dagster/data_version"]

    # The older version is not what readers of the dataset get, however often it is looked at.
    older = platform.registry.pins.get(platform.cell("notes@v1", "text"))
    report_pin(platform.instance, platform.catalog, older)
    assert len(reported(platform, "text")) == 2

    # What somebody reports by hand, in the UI, names no pin.
    platform.instance.report_runless_asset_event(dg.AssetMaterialization(dataset_key("notes", "text")))
    report_pin(platform.instance, platform.catalog, older)
    assert reported(platform, "text")[-1].metadata["mm/version"].value == "v1"

    for words in (["notes@v1"], ["notes@v2", "--override", "no bread"], ["--back", "notes@production"]):
        done = mm("promote", *words, **platform.settings.exports())
        assert done.returncode == 0, done.stderr
    moves = reported(platform, "production")
    assert [move.metadata["mm/version"].value for move in moves] == ["v1", "v2", "v1"]
    assert moves[0].tags["dagster/data_version"] == moves[2].tags["dagster/data_version"]
    first, forced, back = gates(platform.instance)
    assert (first.passed, forced.passed, back.passed) == (True, False, True)
    assert forced.severity == dg.AssetCheckSeverity.WARN, "it was overridden"
    assert "label 'bread'" in str(forced.description)
    assert forced.metadata["text.coverage"].value is False


def gates(instance: dg.DagsterInstance) -> list[dg.AssetCheckEvaluation]:
    """The gates of promotions that were reported, oldest first."""
    key = dg.AssetCheckKey(dataset_key("notes", "production"), PROMOTION_GATE)
    records = instance.event_log_storage.get_asset_check_execution_history(key, limit=20)
    events = [record.event.dagster_event for record in reversed(records) if record.event is not None]
    return [event.asset_check_evaluation_data for event in events if event is not None]


def test_the_assets_of_a_dataset_go_with_its_last_version(published: Any, tmp_path: Path) -> None:
    instance, catalog = dg.DagsterInstance.ephemeral(), published.catalog
    pin = catalog.registry.pins.get(published.cell("tiny@v1", "image"))
    report_pin(instance, catalog, pin)
    own = dg.AssetKey(["features", "tiny", "thumbnails"])
    other = dg.AssetKey(["features", "tiny2", "image"])
    for key in (own, other):
        instance.report_runless_asset_event(dg.AssetMaterialization(key))
    assert remove_assets(instance, catalog, "tiny") == [], "a version is left"
    assert remove_assets(instance, Catalog.open(tmp_path / "empty"), "tiny") == [dataset_key("tiny", "image")]
    assert set(instance.get_asset_keys()) == {own, other}
    assert instance.get_latest_materialization_event(dataset_key("tiny", "image")) is None


def test_an_asset_downstream_is_requested_by_the_data_version_of_a_dataset(
    new_platform: Any, tmp_path: Path
) -> None:
    """It is declared in a project of a user's own, without partitions or mappings."""
    platform = new_platform(tmp_path / "platform", durable=True)
    folder = tmp_path / "notes"
    folder.mkdir()

    @dg.asset(deps=[dataset_key("notes", "text")], automation_condition=dg.AutomationCondition.eager())
    def model() -> None:
        pass

    definitions = dg.Definitions(assets=[model])

    def requested(cursor: Any) -> Any:
        return dg.evaluate_automation_conditions(definitions, platform.instance, cursor=cursor)

    before = requested(None)
    assert before.total_requested == 0
    write(platform, folder, "v1", {"rivers": 2, "bread": 2})
    after = requested(before.cursor)
    assert after.total_requested == 1
    platform.backfill("notes@v1")
    assert requested(after.cursor).total_requested == 0
