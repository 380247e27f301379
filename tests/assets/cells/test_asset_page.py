"""The page of an asset: informative columns first, readable checks, the next command on top."""

from __future__ import annotations

from typing import Any

import dagster as dg
import pyarrow as pa
import pytest

from mm_assets.cells.asset_page import PREVIEW_COLUMNS, AssetPage, informative_columns
from mm_assets.cells.check_descriptions import DESCRIPTIONS
from mm_assets.cells.checks import Check
from mm_assets.cells.figures import Effort, scalar_figures
from mm_assets.cells.materialization import materialize_result
from mm_assets.definitions import defs
from mm_embed_kernels import contracts
from mm_resources.cell import Cell
from mm_resources.tables.stage_refs import StageMeta


def test_informative_columns_come_first() -> None:
    rows = pa.table(
        {
            "sample_id": ["a", "b"],
            "width": [3, 4],
            "height": [9, 9],
            "fps": pa.array([None, None], pa.float64()),
            "kept": [True, False],
            "key": ["x", "y"],
        }
    )
    assert informative_columns(rows) == ["key", "kept", "width", "height", "sample_id"]
    wide = pa.table({"segment_id": ["a"], **{f"c{i}": [i] for i in range(20)}})
    assert len(informative_columns(wide)) == PREVIEW_COLUMNS
    assert informative_columns(wide)[-1] == "segment_id"


def test_every_check_says_what_passes() -> None:
    specs: list[Any] = [
        spec
        for asset in defs.assets or ()
        if isinstance(asset, dg.AssetsDefinition)
        for spec in asset.check_specs
    ]
    assert {spec.name for spec in specs} == set(DESCRIPTIONS)
    assert all(spec.description == DESCRIPTIONS[spec.name] for spec in specs)


def test_commands_and_failures_stand_on_top(published: Any) -> None:
    record = published.instance.fetch_materializations(dg.AssetKey("sample_metadata"), limit=1).records[0]
    metadata = record.asset_materialization.metadata
    assert next(iter(metadata)) == "next"
    for name in ("computed", "reused"):
        assert name not in metadata or metadata[name].value


def test_a_page_links_to_the_explorer_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    contract, cell = contracts.CURATED_SAMPLES, Cell("birds", "v1", "image")
    meta = StageMeta("d", "i", 0, 0, 0, 0, 0, "e", "", {}, "run", "now")

    def link(asset: str, causes: dict[str, int]) -> str | None:
        page = AssetPage(contract, {}, pa.table({}), {}, "table", causes, "")
        made = materialize_result(asset, cell, meta, page, [], Effort({}, False, 0.0)).metadata or {}
        return made["explorer"].value if "explorer" in made else None  # type: ignore[union-attr]

    assert link("curated_samples", {}) is None
    monkeypatch.setenv("MM_EXPLORER_URL", "https://mm.example/")
    cell_address = "version=birds%40v1&modality=image"
    assert link("curated_samples", {}) == f"https://mm.example/curate?{cell_address}"
    assert link("segments", {}) == f"https://mm.example/samples?{cell_address}"
    assert link("sample_metadata", {"truncated": 1}) == f"https://mm.example/failures?{cell_address}"


def test_failures_are_read_without_a_click() -> None:
    """Dagster's page folds a text of a thousand characters into a link."""
    causes = {"truncated": 1, "wrong_modality": 1, "decode_error": 1, "zero_length": 2}
    cell, meta = Cell("birds", "v1", "image"), StageMeta("d", "i", 0, 0, 0, 0, 0, "e", "", {}, "run", "now")
    page = AssetPage(contracts.SAMPLE_METADATA, {}, pa.table({}), {}, "table", causes, "")
    made = materialize_result("sample_metadata", cell, meta, page, [], Effort({}, False, 0.0)).metadata or {}
    shown = made["failures"].value  # type: ignore[union-attr]
    assert len(shown) < 1000
    assert [line.split(" | ")[0] for line in shown.splitlines()[2:6]] == [f"| {cause}" for cause in causes]


def test_figures_of_a_report_are_those_of_its_cell() -> None:
    """`mm/failed` of the report is that of all stages; figures whose names tell versions make no series."""
    meta = StageMeta("d", "i", 11, 11, 0, 0, 0, "e", "", {}, "run", "now", summary={"failed": 4})
    checks = [
        Check("recall", True, "", {"recall": 0.99}),
        Check("drift", True, "", {"labels birds@v1": 0.1}, blocking=False),
    ]
    figures = scalar_figures(meta, checks, Effort({}, False, 0.0))
    assert (figures["mm/failed"], figures["mm/recall"], figures["mm/rows"]) == (4, 0.99, 11)
    assert not [name for name in figures if "birds" in name]
