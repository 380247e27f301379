"""Compare the cost model with a run ten times larger than its fit: texts with the static embedder.

Run: .venv/bin/python -m benchmarks.projection --fit 1000 10000 --predict 100000
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks import ratios
from benchmarks.process_tree import run
from benchmarks.ratios import Row
from benchmarks.scale import print_growth
from benchmarks.sentences import write_records
from mm_resources.catalog import Catalog
from mm_resources.cell import Cell
from mm_resources.costs.cell_costs import cell_cost
from mm_resources.costs.prediction import Prediction, predict_cost
from mm_resources.costs.prices import Prices
from mm_resources.costs.run_history import RecordedCost, recorded_costs

_SPEC = """
name: {name}
version: v1
embedders: {{text: [wordllama]}}
sources:
  - {{name: sentences, modality: text, uri: {name}.jsonl, record: {{id: id, text: text, label: topic}}}}
"""
_FIT, _PREDICT = (1_000, 10_000), 100_000


def main() -> None:
    """Print predicted and measured seconds by stage, the ratios of the whole, and the growth by stage."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--fit", type=int, nargs="+", default=_FIT, help="texts of each run that the model is fitted on"
    )
    parser.add_argument("--predict", type=int, default=_PREDICT, help="texts of the run to predict")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="mm-projection-") as corpus:
        model, took, whole, history = measure(Path(corpus), arguments.fit, arguments.predict)
    print(f"{'stage':24}{'predicted s':>12}{'measured s':>12}{'ratio':>8}")
    for stage in model.stages:
        seconds = took[stage.stage]
        print(f"{stage.stage:24}{stage.seconds:12.2f}{seconds:12.2f}{stage.seconds / seconds:8.2f}")
    for name, ratio in whole.items():
        print(f"{name}: predicted / measured {ratio:.2f}")
    print_growth(history)


def rows(share: float) -> Iterator[Row]:
    """Yield predicted over measured: 1 is an exact prediction."""
    fit, predict = [max(50, round(count * share)) for count in _FIT], max(500, round(_PREDICT * share))
    with tempfile.TemporaryDirectory(prefix="mm-projection-") as corpus:
        *_, whole, _ = measure(Path(corpus), fit, predict)
    for name, ratio in whole.items():
        yield ratios.row(
            f"cost model, {predict:,} texts by {max(fit):,}: {name}", [ratio], goal=None, sense=">="
        )


def measure(
    corpus: Path, fit: Sequence[int], predict: int
) -> tuple[Prediction, dict[str, float], dict[str, float], list[RecordedCost]]:
    """Run the cells of the fit and the larger one.

    Returns:
        The prediction, the measured seconds of each stage of the larger cell, predicted over measured for
        time, memory, storage and price, and the ledger's points of all runs.
    """
    with tempfile.TemporaryDirectory(prefix="mm-projection-") as scratch:
        folder, catalog, first = Path(scratch), Catalog.open(f"{scratch}/store"), 0
        for count in fit:
            _backfill(corpus, folder, f"of{count}", count, first)
            first += count
        model = predict_cost(catalog, Cell(f"of{fit[-1]}", "v1", "text"), Prices(), predict)
        _backfill(corpus, folder, "larger", predict, first)
        cell = Cell("larger", "v1", "text")
        cost = cell_cost(catalog, cell, Prices())
        history = recorded_costs(catalog, "text")
    last = [point for point in history if point.cell == cell]
    took = {point.stage: point.seconds for point in last}
    whole = {
        "time": model.seconds / sum(took.values()),
        "memory": model.peak_bytes / max(point.peak_bytes for point in last),
        "storage": model.stored_bytes / cost.stored_bytes,
        "price": model.price / cost.price,
    }
    return model, took, whole, history


def _backfill(corpus: Path, folder: Path, name: str, count: int, first: int) -> None:
    write_records(corpus, folder / f"{name}.jsonl", count, first)
    (folder / f"{name}.yaml").write_text(_SPEC.format(name=name))
    environment = {"MM_STORE": str(folder / "store"), "DAGSTER_HOME": str(folder / "home")}
    mm = [sys.executable, "-m", "mm_assets.cli.main"]
    run([*mm, "register", str(folder / f"{name}.yaml")], environment)
    taken = run([*mm, "backfill", f"{name}@v1", "--json"], environment)
    print(f"{name}: {taken.seconds:.1f} s", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
