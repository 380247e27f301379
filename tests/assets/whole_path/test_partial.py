"""`on_partial`: a cut-off medium fails or is published up to the cut; whole media are computed once either way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mm_assets.operations.backfill_plan import plan_cell
from mm_assets.operations.status import cell_status
from mm_embed_kernels.modalities import get
from mm_resources.resources import default_embedder


def test_half_a_picture_by_the_spec(platform: Any, dataset: Path) -> None:
    photo = dataset.parent / "photos" / "flower" / "1.jpg"
    photo.with_name("broken.jpg").write_bytes(photo.read_bytes()[: photo.stat().st_size // 2])
    text = dataset.read_text("utf-8")
    dataset.write_text("\n".join(line for line in text.splitlines() if "sentences" not in line), "utf-8")
    platform.register(dataset)
    first = platform.backfill("tiny@v1")["image"]
    counts = cell_status(platform.catalog, platform.cell("tiny@v1", "image"))
    assert (counts["published"], counts["failures"]) == (2, {"truncated": 1})

    dataset.write_text(
        dataset.read_text("utf-8").replace("version: v1", "version: v2\non_partial: keep_prefix"), "utf-8"
    )
    platform.register(dataset)
    planned = plan_cell(platform.catalog, platform.cell("tiny@v2", "image"), default_embedder(get("image")))
    assert {plan.kernel: plan.computed for plan in planned} == {
        "fetch": 0,
        "probe": 1,
        "segment": 1,
        "embed:conse": 1,
    }
    second = platform.backfill("tiny@v2")["image"]
    cell = platform.cell("tiny@v2", "image")
    counts = cell_status(platform.catalog, cell)
    assert (counts["published"], counts["failed"]) == (3, 0)
    rows = (
        platform.catalog.tables.read("sample_metadata", cell, ["key", "read_share", "decoder"])
        .read_all()
        .to_pylist()
    )
    shares = sorted(row["read_share"] for row in rows)
    assert 0.2 < shares[0] < 0.8
    assert shares[1:] == [1, 1]
    # Only the cut-off medium is probed again, segmented and embedded.
    assert first.computed["probe"] == 3
    assert (second.computed["probe"], second.computed["segment"], second.computed["embed:conse"]) == (1, 1, 1)
