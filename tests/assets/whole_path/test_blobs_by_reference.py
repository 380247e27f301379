"""`blobs: reference`: bytes stay in their source and are published; samples fail when their bytes change."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from mm_assets.operations.status import cell_status


def test_referenced_photographs(platform: Any, dataset: Path) -> None:
    dataset.write_text(
        dataset.read_text().replace(
            "label: {from: parent_dir}}", "label: {from: parent_dir}, blobs: reference}"
        )
    )
    platform.register(dataset)
    assert platform.backfill("tiny@v1", "image")["image"].status == "published"
    cell = platform.cell("tiny@v1", "image")
    paths = platform.catalog.tables.read("content_blobs", cell, ["path"]).read_all()["path"].to_pylist()
    assert len(paths) == 3
    photos = dataset.parent / "photos"
    assert all(path.startswith(f"source:{photos}/") for path in paths)
    assert list(platform.store.objects("blobs/packs")) == []
    assert platform.backfill("tiny@v1", "image")["image"].status == "unchanged"

    os.utime(photos / "temple" / "1.jpg")
    (photos / "flower" / "broken.jpg").unlink()
    platform.backfill("tiny@v1", "image", override="to see what is left")
    counts = cell_status(platform.catalog, cell)
    assert (counts["published"], counts["failures"]) == (1, {"source_changed": 1, "blob_missing": 1})
    events = platform.catalog.failures.read(cell).read_all().to_pylist()
    assert all(event["retryable"] and event["stage"] == "content_blobs" for event in events)
