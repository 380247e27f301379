"""The cost model: lines fitted to a ledger, and predictions for a larger cell."""

from __future__ import annotations

from pathlib import Path

import pytest

from mm_embed_kernels.errors import UserError
from mm_resources.catalog import Catalog
from mm_resources.cell import Cell
from mm_resources.compute.runner import ComputeReport
from mm_resources.costs.prediction import Line, predict_cost
from mm_resources.costs.prices import Prices
from mm_resources.costs.run_history import growth_powers, recorded_costs
from mm_resources.ledger.ledger import Spent, entries
from mm_resources.metering import Usage
from mm_resources.tables.stage_refs import StageMeta

PRICES = Prices("EUR", cpu_hour=3.6)  # 0.001 for a CPU second


def worked(
    catalog: Catalog,
    name: str,
    samples: int,
    seconds: float,
    kernel: float,
    *,
    embedder: str = "e",
    reused: int = 0,
) -> None:
    """Record a run of a cell: an embedding of `seconds`, `kernel` of them in kernels, and a report without."""
    cell, run = Cell(name, "v1", "text"), f"run-{name}-{reused}"
    meta = StageMeta("d", "i", samples, samples, 0, 0, 0, "e", "", {}, run, "now", samples=samples)
    report = ComputeReport(
        f"embed:{embedder}", embedder * 64, "inline", samples, reused, 0, 1, kernel, Usage(kernel)
    )
    for stage, reports, taken in (("embeddings", [report], seconds), ("lineage_report", [], 3.0)):
        spent = Spent(
            taken, Usage(2 * taken, bytes_written=10 * samples), 1_000_000 + 100 * samples, samples, samples
        )
        catalog.ledger.record(entries(stage, cell, run, meta, False, reports, spent))


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    """Return a catalog with two sizes of runs: 2 s fixed, 1 ms a sample in kernels, 0.5 ms outside."""
    catalog = Catalog.open(tmp_path)
    for samples in (300, 1_000):
        worked(catalog, f"n{samples}", samples, 2 + 0.0015 * samples, 0.001 * samples)
    return catalog


def test_a_line_is_never_negative() -> None:
    both = Line.fit([(100, 3.0), (200, 4.0)])
    assert both.fixed == pytest.approx(2.0)
    assert both.each == pytest.approx(0.01)
    assert Line.fit([(100, 2.0), (200, 6.0)]).fixed == 0
    falling = Line.fit([(100, 6.0), (200, 4.0)])
    assert falling.each == 0
    assert 4 < falling.fixed < 6
    assert Line.fit([(100, 3.0), (100, 5.0)]) == Line(0.0, 0.04)
    assert Line.fit([(100, 0.0), (200, 0.0)]).at(10_000) == 0


def test_workers_share_what_kernels_take_alone(catalog: Catalog) -> None:
    cell = Cell("n300", "v1", "text")
    alone, four = (predict_cost(catalog, cell, PRICES, 10_000, workers) for workers in (1, 4))
    here = predict_cost(catalog, cell, PRICES, 10_000)
    stages = {stage.stage: stage for stage in here.stages}
    assert here.fitted_on == [300, 1_000]
    assert stages["embeddings"].seconds == pytest.approx(17, rel=0.01)
    assert stages["embeddings"].fixed_seconds == pytest.approx(2, rel=0.01)
    assert stages["lineage_report"].seconds == pytest.approx(3)
    assert here.price == pytest.approx((2 * 17 + 2 * 3) / 1000, rel=0.01)
    assert here.peak_bytes == pytest.approx(
        1_234_000, rel=0.01
    )  # 0.04 MB more with each doubling of the samples
    assert here.commits == 3  # one to the cache, and two tables
    assert (
        predict_cost(catalog, cell, PRICES, 1_000_000).commits == 33
    )  # a checkpoint holds 32,768 rows at most
    # Workers share the ten seconds of kernels; the other ten stay.
    assert alone.seconds - 10 == pytest.approx(4 * (four.seconds - 10), rel=0.01)
    assert alone.price == four.price


def test_only_runs_that_computed_such_a_cell_count(catalog: Catalog) -> None:
    worked(catalog, "other", 5_000, 900.0, 900.0, embedder="f")
    worked(catalog, "n300", 300, 500.0, 0.0, reused=200)
    found = predict_cost(catalog, Cell("n300", "v1", "text"), PRICES, 10_000)
    assert found.fitted_on == [300, 1_000]
    assert found.seconds == pytest.approx(20, rel=0.01)
    assert predict_cost(catalog, Cell("other", "v1", "text"), PRICES, 10_000).fitted_on == [5_000]
    with pytest.raises(
        UserError, match="image: no run of n300@v1 or of a cell like it computed its samples anew"
    ):
        predict_cost(catalog, Cell("n300", "v1", "image"), PRICES, 10_000)


def test_what_grows_faster_than_the_samples_is_named(catalog: Catalog) -> None:
    cell = Cell("n300", "v1", "text")
    assert growth_powers(recorded_costs(catalog, "text"))["lineage_report"] == pytest.approx(0)
    assert predict_cost(catalog, cell, PRICES, 10_000).steeper == {}
    worked(catalog, "n10000", 10_000, 3.5 * 10**1.5, 1.0)
    assert predict_cost(catalog, cell, PRICES, 10_000).steeper == {"embeddings": pytest.approx(1.5)}


def test_an_index_that_no_run_built_is_named(catalog: Catalog) -> None:
    cell = Cell("n300", "v1", "text")
    assert [
        predict_cost(catalog, cell, PRICES, samples).unseen_index for samples in (10_000, 100_000, 1_000_000)
    ] == [
        None,
        "IVF_HNSW_SQ",
        "IVF_SQ",
    ]
