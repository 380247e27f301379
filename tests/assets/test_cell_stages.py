"""The stages of a cell without Dagster give what a run of Dagster's gives."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from mm_assets.operations.cell_result import CellResult
from tests.assets.conftest import Maker, Platform
from tests.conftest import write_dataset

_STORED = ("data_version", "inputs", "rows", "row_count", "failed", "blocked", "work", "samples", "checks")


def told(result: CellResult) -> dict[str, Any]:
    return {name: value for name, value in asdict(result).items() if name not in ("run_id", "seconds")}


def stages(platform: Platform, modality: str) -> dict[str, Any]:
    metas = platform.catalog.snapshot(platform.cell("tiny@v1", modality)).metas
    return {
        name: {field: value for field, value in vars(meta).items() if field in _STORED}
        for name, meta in metas.items()
    }


@pytest.mark.parametrize("gates", ["max_failed_share: 0.5", "max_failed_share: 0.1"])
def test_they_agree(gates: str, new_platform: Maker, photos: dict[str, Path], tmp_path: Path) -> None:
    spec = write_dataset(tmp_path / "data", photos)
    spec.write_text(spec.read_text("utf-8").replace("max_failed_share: 0.5", gates), "utf-8")
    both = [new_platform(tmp_path / name) for name in ("stages", "dagster")]
    for platform in both:
        platform.register(spec)
    for _ in range(2):
        mine, theirs = (
            platform.backfill("tiny@v1", "text", dagster=dagster)["text"]
            for platform, dagster in zip(both, (False, True), strict=True)
        )
        assert told(mine) == told(theirs)
    assert stages(both[0], "text") == stages(both[1], "text")
    assert both[0].instance.get_run_records() == []
    assert len(both[1].instance.get_run_records()) == 2
