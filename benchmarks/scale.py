"""Measure memory, time and files by the number of samples, from files to a published, indexed feature table.

The growth of each stage, and the stages that grow faster than the samples, are read from the ledger.

Run: .venv/bin/python -m benchmarks.scale text --counts 100000 1000000
     .venv/bin/python -m benchmarks.scale image --counts 360 3600
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import tempfile
from pathlib import Path

from benchmarks.packages import members
from benchmarks.process_tree import Run, run
from benchmarks.sentences import write_records
from mm_resources.catalog import Catalog
from mm_resources.costs.run_history import LINEAR, RecordedCost, growth_powers, recorded_costs

_SPEC = """
name: scale
version: v1
embedders: {text: [wordllama]}
sources:
"""
_SOURCES = {
    "text": "  - {name: sentences, modality: text, uri: sentences.jsonl, "
    "record: {id: id, text: text, label: topic}}\n",
    "image": "  - {name: pictures, modality: image, uri: 'pictures/*.png'}\n",
}
# Real pictures of one size, so that runs differ by their number only.
PICTURES = ("emoji-datasource-twitter@16.0.0", "package/img/twitter/64/")


def main() -> None:
    """Print memory, time and files for each number of samples, and the growth by stage."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("modality", choices=list(_SOURCES))
    parser.add_argument("--counts", type=int, nargs="+", required=True)
    parser.add_argument(
        "--folder", type=Path, default=None, help="folder of data and stores; not deleted if given"
    )
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="mm-scale-") as scratch:
        folder = arguments.folder or Path(scratch)
        runs = {count: _measure(folder, arguments.modality, count) for count in arguments.counts}
        catalogs = [
            Catalog.open(folder / f"{arguments.modality}-{count}" / "store") for count in arguments.counts
        ]
        history = [point for catalog in catalogs for point in recorded_costs(catalog, arguments.modality)]
    (least, first), *more = runs.items()
    for count, (taken, files) in runs.items():
        print(
            f"{count:>9,} {arguments.modality}: {taken.peak_mib:,.0f} MiB at the peak, "
            f"{taken.seconds / count * 1e3:.3f} ms each, {files:,} files"
        )
    for count, (taken, _) in more:
        memory, pace = (
            taken.peak_mib / first[0].peak_mib,
            (taken.seconds / count) / (first[0].seconds / least),
        )
        print(f"{count:,} against {least:,}: peak memory x {memory:.2f}, time of each x {pace:.2f}")
    print_growth(history)


def print_growth(history: list[RecordedCost]) -> None:
    """Print milliseconds per sample by stage and size, and the power of each stage's growth.

    The power is that between the two largest sizes: once of wall time, once of CPU time, which depends less
    on other work of the machine.
    """
    sizes = sorted({point.samples for point in history})
    for title, figure in (("ms of a sample", "seconds"), ("CPU ms of a sample", "cpu_seconds")):
        power = growth_powers(history, figure)
        print(f"{title:24}" + "".join(f"{size:>10,}" for size in sizes) + f"{'power':>8}")
        for stage in dict.fromkeys(point.stage for point in history):
            each = [
                next(
                    getattr(point, figure)
                    for point in history
                    if (point.stage, point.samples) == (stage, size)
                )
                / size
                for size in sizes
            ]
            growth = f"{power[stage]:8.2f}" if stage in power else ""
            print(f"{stage:24}" + "".join(f"{1e3 * taken:10.3f}" for taken in each) + growth)
        every = [
            sum(getattr(point, figure) for point in history if point.samples == size) / size for size in sizes
        ]
        print(f"{'all':24}" + "".join(f"{1e3 * taken:10.3f}" for taken in every))
        steeper = [f"{stage} (power {value:.2f})" for stage, value in power.items() if value > LINEAR]
        print(f"faster than linear: {', '.join(steeper) or 'nothing'}")


def _measure(folder: Path, modality: str, count: int) -> tuple[Run, int]:
    root = folder / f"{modality}-{count}"
    root.mkdir(parents=True, exist_ok=True)
    if modality == "text":
        write_records(folder / "corpus", root / "sentences.jsonl", count)
    else:
        _write_pictures(folder / "corpus", root / "pictures", count)
    (root / "dataset.yaml").write_text(_SPEC + _SOURCES[modality])
    environment = {"MM_STORE": str(root / "store"), "DAGSTER_HOME": str(root / "home")}
    mm = [sys.executable, "-m", "mm_assets.cli.main"]
    run([*mm, "register", str(root / "dataset.yaml")], environment)
    taken = run([*mm, "backfill", "scale@v1", "--json"], environment)
    print(json.dumps(json.loads(taken.output[taken.output.index("{") :])["cells"]), file=sys.stderr)
    return taken, sum(path.is_file() for path in (root / "store").rglob("*"))


def _write_pictures(corpus: Path, folder: Path, count: int) -> None:
    folder.mkdir(exist_ok=True)
    for name, data in itertools.islice(members(corpus, *PICTURES), count):
        (folder / name).write_bytes(data)


if __name__ == "__main__":
    main()
