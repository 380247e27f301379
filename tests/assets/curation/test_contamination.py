"""Texts that also occur in a benchmark, through the graph: `contaminated` drops them, and what-if flags them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mm_assets.curation.contamination import compared_cells
from mm_assets.curation.what_if import what_if
from mm_assets.operations.backfill_plan import plan_cell
from mm_embed_kernels.errors import UserError
from mm_embed_kernels.modalities import get
from mm_embed_kernels.rules import rule_set
from mm_resources.catalog import Catalog
from mm_resources.cell import Cell
from mm_resources.costs.prices import Prices
from mm_resources.resources import default_embedder
from mm_resources.storage.store import Store

LONG = "The old lighthouse keeper climbed the narrow stairs every single evening to light the lamp for all the ships at sea"
TEXTS = {
    "bench": [
        LONG,
        "Nobody had told the children that the museum would be closed on the first Monday of the month",
    ],
    "birds": [
        LONG.replace("every single", "every"),
        LONG,
        "A heron stands in the shallow water and waits for a careless fish to come by",
    ],
}


def write(folder: Path, name: str, rules: str) -> Path:
    folder.mkdir(exist_ok=True)
    lines = [json.dumps({"id": f"{name}{n}", "text": text}) for n, text in enumerate(TEXTS[name])]
    (folder / f"{name}.jsonl").write_text("\n".join(lines))
    spec = folder / f"{name}.yaml"
    spec.write_text(
        f"{{name: {name}, version: v1, curation: {{rules: {{{rules}}}}},"
        f" sources: [{{name: s, modality: text, uri: {name}.jsonl, record: {{id: id, text: text}}}}]}}"
    )
    return spec


def test_a_dataset_is_kept_apart_from_a_benchmark(platform: Any, tmp_path: Path) -> None:
    for name, rules in (("bench", ""), ("birds", "contaminated: {against: bench@v1, action: drop}")):
        platform.register(write(tmp_path / "data", name, rules))
    early = platform.backfill("birds@v1")["text"]
    assert early.status == "failed"
    with pytest.raises(UserError, match="nothing is validated yet; run `mm backfill bench@v1"):
        plan_cell(platform.catalog, platform.cell("birds@v1", "text"), default_embedder(get("text")))
    assert (
        "birds@v1|text is to be compared with bench@v1, of which nothing is validated yet; run `mm backfill bench@v1"
        in early.reason
    )
    assert platform.backfill("bench@v1")["text"].status == "published"
    assert platform.backfill("birds@v1")["text"].status == "published"
    rows = {row["key"]: row for row in platform.features.decisions("birds@v1", "text").to_pylist()}
    assert {key: row["rule"] for key, row in rows.items()} == {
        "birds0": "contaminated",
        "birds1": "contaminated",
        "birds2": None,
    }
    assert [rows[key]["duplicates"][-1]["kind"] for key in ("birds0", "birds1")] == [
        "near_text in bench@v1",
        "near_text in bench@v1",
    ]
    assert "exact in bench@v1" in [found["kind"] for found in rows["birds1"]["duplicates"]]
    cell = platform.cell("birds@v1", "text")
    found = what_if(
        platform.catalog, cell, {"contaminated": {"action": "flag"}}, default_embedder(get("text")), Prices()
    )
    assert (found.kept_now, found.kept_then) == (1, 3)
    planned = {item.kernel: item for item in plan_cell(platform.catalog, cell, default_embedder(get("text")))}
    assert {name: (item.computed, item.reused) for name, item in planned.items()} == {
        "fetch": (0, 3), "probe": (0, 3), "segment": (0, 1), "embed:minilm": (0, 1),
    }  # fmt: skip
    assert platform.backfill("birds@v1")["text"].status == "unchanged"


def test_what_cannot_be_compared_is_refused(tmp_path: Path) -> None:
    registry, cell = Catalog(Store(str(tmp_path))).registry, Cell("birds", "v1", "text")
    rules = rule_set("text", {"contaminated": {"against": "birds@v0", "action": "flag"}})
    with pytest.raises(UserError, match="birds@v0"):
        compared_cells(registry, cell, rules)
    from mm_embed_kernels.spec.dataset_spec import load_spec

    registry.register(load_spec(write(tmp_path / "data", "birds", "")))
    rules = rule_set("text", {"contaminated": {"against": "birds@v1", "action": "flag"}})
    with pytest.raises(UserError, match="birds@v1 belongs to the cell's own dataset"):
        compared_cells(registry, cell, rules)
    assert compared_cells(registry, Cell("cats", "v1", "image"), rules) == {}
    assert compared_cells(registry, Cell("cats", "v1", "text"), rules) == {"birds@v1": cell}
