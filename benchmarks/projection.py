"""The cost model against a run ten times larger than those that it was fitted on: texts with the static embedder.

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
from mm_resources.costs.prediction import Point, Projection, points, predicted
from mm_resources.costs.prices import Prices

_SPEC = """
name: {name}
version: v1
embedders: {{text: [wordllama]}}
sources:
  - {{name: sentences, modality: text, uri: {name}.jsonl, record: {{id: id, text: text, label: topic}}}}
"""
_FIT, _PREDICT = (1_000, 10_000), 100_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--fit", type=int, nargs="+", default=_FIT, help="texts of the runs that the model is fitted on"
    )
    parser.add_argument("--predict", type=int, default=_PREDICT, help="texts of the run that it predicts")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="mm-projection-") as corpus:
        model, took, whole, known = measured(Path(corpus), asked.fit, asked.predict)
    print(f"{'stage':24}{'predicted s':>12}{'took s':>10}{'ratio':>8}")
    for stage in model.stages:
        print(
            f"{stage.stage:24}{stage.seconds:12.2f}{took[stage.stage]:10.2f}{stage.seconds / took[stage.stage]:8.2f}"
        )
    for name, ratio in whole.items():
        print(f"{name}: predicted / measured {ratio:.2f}")
    print_growth(known)


def rows(share: float) -> Iterator[Row]:
    """What was predicted over what was measured: 1 is a prediction that came true."""
    fit, predict = [max(50, round(count * share)) for count in _FIT], max(500, round(_PREDICT * share))
    with tempfile.TemporaryDirectory(prefix="mm-projection-") as corpus:
        *_, found, _ = measured(Path(corpus), fit, predict)
    for name, ratio in found.items():
        yield ratios.row(
            f"cost model, {predict:,} texts by {max(fit):,}: {name}", [ratio], goal=None, sense=">="
        )


def measured(
    corpus: Path, fit: Sequence[int], predict: int
) -> tuple[Projection, dict[str, float], dict[str, float], list[Point]]:
    """What was predicted, the seconds that each stage took, the ratio of both for time, memory, storage and price, and all that the
    ledger holds of the three runs.
    """
    with tempfile.TemporaryDirectory(prefix="mm-projection-") as scratch:
        folder, catalog, first = Path(scratch), Catalog.open(f"{scratch}/store"), 0
        for count in fit:
            _backfill(corpus, folder, f"of{count}", count, first)
            first += count
        model = predicted(catalog, Cell(f"of{fit[-1]}", "v1", "text"), Prices(), predict)
        _backfill(corpus, folder, "larger", predict, first)
        cell = Cell("larger", "v1", "text")
        cost = cell_cost(catalog, cell, Prices())
        known = points(catalog, "text")
    last = [point for point in known if point.cell == cell]
    took = {point.stage: point.seconds for point in last}
    whole = {
        "time": model.seconds / sum(took.values()),
        "memory": model.peak_bytes / max(point.peak_bytes for point in last),
        "storage": model.stored_bytes / cost.stored_bytes,
        "price": model.price / cost.price,
    }
    return model, took, whole, known


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
