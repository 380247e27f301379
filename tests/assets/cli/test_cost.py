"""Prices, and what a version cost and was spared, by hand-made ledgers and by a real one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from typer.testing import CliRunner

from mm_assets.cli.main import app
from mm_embed_kernels.contracts import CONTENT_BLOBS, CURATED_SAMPLES
from mm_embed_kernels.errors import UserError
from mm_embed_kernels.spec.dataset_spec import parse_spec
from mm_resources.catalog import Catalog
from mm_resources.cell import Cell
from mm_resources.compute.runner import ComputeReport
from mm_resources.costs.cell_costs import cell_cost
from mm_resources.costs.prices import GB, Prices, load_prices
from mm_resources.ledger.ledger import Spent, entries
from mm_resources.metering import Usage
from mm_resources.tables.stage_refs import StageMeta

CELL = Cell("birds", "v1", "text")
BOTH = """
name: birds
version: v2
sources:
- {name: notes, modality: text, uri: "notes/*.txt"}
- {name: photos, modality: image, uri: "photos/*.jpg"}
"""
PRICES = Prices(
    "EUR", cpu_hour=3.6, gpu_hour=36.0, gb_read=1.0
)  # 0.001 for a CPU second, 0.01 for a GPU second


@pytest.mark.parametrize(
    ("used", "price"),
    [
        (Usage(cpu_seconds=10), 0.01),
        (Usage(gpu_seconds=10), 0.1),
        (Usage(bytes_read=int(GB)), 1.0),
        (Usage(bytes_written=int(GB)), 0.0),
        (Usage(1, 1, int(GB), 0, 0), 1.011),
    ],
)
def test_a_price_is_that_of_its_parts(used: Usage, price: float) -> None:
    assert PRICES.of(used) == pytest.approx(price)


def test_a_price_table_names_what_differs(tmp_path: Path) -> None:
    table = tmp_path / "prices.yaml"
    table.write_text("{currency: EUR, gpu_hour: 2}")
    assert load_prices(table) == Prices("EUR", gpu_hour=2)
    assert load_prices(None) == Prices()


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("{gpu: 2}", "unknown: gpu; there are: cpu_hour, currency"),
        ("{gpu_hour: -1}", "gpu_hour: -1 is no price"),
        ("{gpu_hour: .nan}", "gpu_hour: nan is no price"),
        ("{gpu_hour: yes}", "gpu_hour: True is no price"),
        ("{currency: 3}", "currency: 3 is no currency code"),
        ("- 3", "it has no names"),
        ("{", "cannot be read"),
        (None, "cannot be read: .*No such file"),
    ],
)
def test_a_mistaken_price_table_is_one_line(tmp_path: Path, text: str | None, line: str) -> None:
    table = tmp_path / "prices.yaml"
    if text is not None:
        table.write_text(text)
    with pytest.raises(UserError, match=line):
        load_prices(table)


def meta(samples: int) -> StageMeta:
    return StageMeta("d", "i", samples, samples, 0, 0, 0, "e", "", {}, "r", "now", samples=samples)


def stage(catalog: Catalog, contract: Any, rows: list[dict[str, Any]], samples: int) -> None:
    tables = catalog.tables
    read_version = tables.fence(contract.name, CELL)
    written = tables.write(contract.name, CELL, contract, [contract.rows(rows)])
    tables.commit(contract.name, CELL, written, meta(samples), read_version)


def worked(
    catalog: Catalog, name: str, run: str, *reports: ComputeReport, unchanged: bool = False, cpu: float = 0.0
) -> None:
    catalog.ledger.record(
        entries(name, CELL, run, meta(4), unchanged, reports, Spent(9.0, Usage(cpu), 1 << 20, 8, 4))
    )


def kernel(name: str, computed: int, reused: int, cpu: float, gpu: float = 0.0) -> ComputeReport:
    return ComputeReport(name, name[0] * 64, "inline", computed, reused, 0, 1, 2 * cpu, Usage(cpu, gpu))


def test_what_rules_copies_and_the_cache_spared(birds: Catalog) -> None:
    """Eight samples of six blobs; four kept, of two segments each."""
    decisions = [
        {"sample_id": f"{n:032x}", "kept": rule is None, "rule": rule}
        for n, rule in enumerate([None] * 4 + ["too_short"] * 3 + ["exact_duplicate"])
    ]
    stage(birds, CURATED_SAMPLES, decisions, samples=4)
    places = [
        {
            "content_hash": f"{n:064x}",
            "size": 1000,
            "refcount": 1 + (n < 2),
            "path": "source:x" if n == 5 else "p",
        }
        for n in range(6)
    ]
    stage(birds, CONTENT_BLOBS, places, samples=8)
    worked(birds, "sample_metadata", "r1", kernel("probe", 6, 0, cpu=3.0), cpu=3.0)
    worked(birds, "segments", "r1", kernel("segment", 4, 0, cpu=0.4), cpu=0.4)
    worked(birds, "embeddings", "r1", kernel("embed:x", 6, 2, cpu=6.0, gpu=12.0), cpu=7.0)
    worked(birds, "embeddings", "r2", kernel("embed:x", 0, 8, cpu=0.0), unchanged=True, cpu=0.5)
    found = cell_cost(birds, CELL, PRICES, published=4)
    by_stage = {row["stage"]: row for row in found.stages}
    assert by_stage["embeddings"]["cpu_seconds"] == 7.5
    assert (
        by_stage["embeddings"]["runs"],
        by_stage["embeddings"]["computed"],
        by_stage["embeddings"]["reused"],
    ) == (2, 6, 2)
    assert by_stage["embeddings"]["price"] == pytest.approx(0.0075 + 0.12)
    assert found.price == pytest.approx(0.0034 + 0.0075 + 0.12)
    assert found.per_1000_published == pytest.approx(250 * found.price)
    # A segment takes 1 s of CPU and 2 of GPU, a sample has two, and cutting it takes 0.1 s.
    sample = 2 * (0.001 + 0.02) + 0.0001
    assert found.per_kept_sample == pytest.approx(sample)
    assert vars(found.by_rule["too_short"]) == {
        "count": 3,
        "seconds": pytest.approx(3 * 4.2),
        "price": pytest.approx(3 * sample),
    }
    assert vars(found.by_rule["exact_duplicate"]) == {
        "count": 1,
        "seconds": pytest.approx(4.2),
        "price": pytest.approx(sample),
    }
    assert set(found.savings) == {"rule too_short", "deduplication", "cache"}
    assert vars(found.same_bytes) == {"count": 2, "seconds": 2.0, "price": pytest.approx(2 * 0.0005)}
    assert found.savings["deduplication"].price == pytest.approx(sample + 2 * 0.0005)
    assert vars(found.cache["embed:x"]) == {"count": 2, "seconds": 4.0, "price": pytest.approx(2 * 0.021)}
    assert 5_000 < found.stored_bytes < 200_000


def test_a_cell_that_never_ran_costs_nothing(birds: Catalog) -> None:
    said = CliRunner().invoke(app, ["cost", "birds@v1"], catch_exceptions=False).output
    assert said == "text: nothing ran yet\n"
    (cell,) = json.loads(
        CliRunner().invoke(app, ["cost", "birds@v1", "--json"], catch_exceptions=False).output
    )["cells"]
    assert (cell["price"], cell["per_1000_published"], cell["stages"]) == (0, None, [])


def test_a_real_run_has_all_its_figures(
    published: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    table = tmp_path / "prices.yaml"
    table.write_text("{currency: EUR, cpu_hour: 36}")
    monkeypatch.setenv("MM_STORE", published.settings.store)
    monkeypatch.setenv("MM_PRICES", str(table))
    found = json.loads(CliRunner().invoke(app, ["cost", "tiny@v1", "--json"], catch_exceptions=False).output)
    assert (found["prices"]["currency"], len(found["cells"])) == ("EUR", 2)
    for cell in found["cells"]:
        stages = {row["stage"]: row for row in cell["stages"]}
        assert len(stages) == 12
        assert [
            stages[name]["samples_out"] for name in ("dataset_registry", "curated_samples", "feature_views")
        ] == [3, 2, 2]
        assert stages["raw_assets"]["bytes_read"] > 0
        assert all(
            row["cpu_seconds"] > 0
            and row["bytes_written"] > 0
            and row["price"] == pytest.approx(row["cpu_seconds"] / 100)
            for row in stages.values()
        )
        assert cell["per_1000_published"] == pytest.approx(cell["price"] * 500)
    assert found["total"]["price"] == pytest.approx(sum(cell["price"] for cell in found["cells"]))
    said = CliRunner().invoke(app, ["cost", "tiny@v1"], catch_exceptions=False).output
    assert "for 1,000 published samples" in said
    assert "in all: " in said


def test_the_asset_page_shows_them(published: Any) -> None:
    event = published.instance.get_latest_materialization_event(
        dg.AssetKey("lineage_report")
    ).asset_materialization
    assert "USD for 1,000 published" in event.metadata["summary"].value
    rows = (
        published.catalog.tables.read("lineage_report", published.cell("tiny@v1", "image"))
        .read_all()
        .to_pylist()
    )
    assert all(row["cpu_seconds"] > 0 and row["price"] > 0 and row["peak_bytes"] > 0 for row in rows)


def test_a_larger_cell_is_predicted_by_a_real_run(published: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MM_STORE", published.settings.store)
    asked = ["cost", "tiny@v1", "--modality", "image", "--predict", "3000"]
    (cell,) = json.loads(CliRunner().invoke(app, [*asked, "--json"], catch_exceptions=False).output)["cells"]
    assert (cell["samples"], cell["fitted_on"], len(cell["stages"])) == (3000, [3], 12)
    assert cell["stored_bytes"] > 3000 * 384 * 4
    said = CliRunner().invoke(app, [*asked, "--workers", "64"], catch_exceptions=False).output
    assert "3,000 samples on 64 workers, fitted on runs of 3" in said
    assert "all runs had one size" in said


def test_a_cell_without_a_history_ends_no_prediction_of_the_others(birds: Catalog) -> None:
    birds.registry.register(parse_spec(BOTH, "birds.yaml"))
    asked = ["cost", "birds@v2", "--predict", "1000"]
    none = CliRunner().invoke(app, asked)
    assert "image: no run of birds@v2" in str(none.exception)
    assert "text: no run of birds@v2" in str(none.exception)
    worked(birds, "embeddings", "run", kernel("embed:e", 4, 0, 2.0))
    found = json.loads(CliRunner().invoke(app, [*asked, "--json"], catch_exceptions=False).stdout)
    assert [cell["modality"] for cell in found["cells"]] == ["text"]
    assert list(found["unknown"]) == ["image"]
    said = CliRunner().invoke(app, asked, catch_exceptions=False)
    assert "text: 1,000 samples on" in said.stdout
    assert said.stderr.startswith("image: no run of birds@v2 or of a cell like it computed its samples anew")


def test_an_index_that_no_run_built_is_tried(published: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MM_STORE", published.settings.store)
    asked = ["cost", "tiny@v1", "--modality", "image", "--predict"]
    few, many = (
        json.loads(CliRunner().invoke(app, [*asked, count, "--json"], catch_exceptions=False).output)[
            "cells"
        ][0]
        for count in ("40000", "100000")
    )
    assert (few["unseen_index"], few["index_seconds"]) == (None, 0)
    assert many["unseen_index"] == "IVF_HNSW_SQ"
    before, after = ({stage["stage"]: stage for stage in cell["stages"]} for cell in (few, many))
    assert 0 < many["index_seconds"] < after["feature_table"]["seconds"]
    assert after["feature_table"]["seconds"] - many["index_seconds"] == pytest.approx(
        2.5 * before["feature_table"]["seconds"]
    )
    assert after["feature_table"]["cpu_seconds"] > 2.5 * before["feature_table"]["cpu_seconds"]
    assert after["sample_metadata"]["seconds"] == pytest.approx(2.5 * before["sample_metadata"]["seconds"])
    said = CliRunner().invoke(app, [*asked, "100000"], catch_exceptions=False).output
    assert "an IVF_HNSW_SQ index is built, which no recorded run has done; estimate from a trial: " in said
