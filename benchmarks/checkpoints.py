"""Grow a table by thousands of small commits, with and without compaction: fragments, files and time.

Run: .venv/bin/python -m benchmarks.checkpoints --commits 5000
"""

from __future__ import annotations

import argparse
import tempfile
import time
from datetime import timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa

from mm_resources.storage import dataset_versions, lance_datasets
from mm_resources.storage.process import configure_process

_ROWS, _DIMENSION = 50, 256


def main() -> None:
    """Grow one table with compaction and one without, then compact and clean both."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--commits", type=int, default=5_000)
    arguments = parser.parse_args()
    configure_process()
    with tempfile.TemporaryDirectory(prefix="mm-checkpoints-") as folder:
        for name, scraps in (
            ("compacted while it grows", lance_datasets.SCRAPS),
            ("never compacted", 1 << 30),
        ):
            lance_datasets.SCRAPS = scraps
            _grow(Path(folder) / f"{scraps}.lance", name, arguments.commits)


def _grow(path: Path, name: str, commits: int) -> None:
    dice = np.random.default_rng(0)
    marks: list[float] = []
    for number in range(commits):
        vectors = dice.random((_ROWS, _DIMENSION), np.float32)
        keys = [f"{number:08x}{row:056x}" for row in range(_ROWS)]
        table = pa.table(
            {
                "key": keys,
                "vector": pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), _DIMENSION),
            }
        )
        began = time.perf_counter()
        lance_datasets.append(str(path), table)
        marks.append(time.perf_counter() - began)
    tenth = max(1, commits // 10)
    slower = sum(marks[-tenth:]) / sum(marks[:tenth])
    print(
        f"{name}: {commits:,} commits of {_ROWS} rows, "
        f"the last tenth took x {slower:.2f} the time of the first; {_shape(path)}"
    )
    lance_datasets.compact(str(path), 2)
    dataset_versions.clean(str(path), timedelta(0))
    print(f"  after upkeep: {_shape(path)}")


def _shape(path: Path) -> str:
    dataset = lance_datasets.open_dataset(str(path))
    assert dataset is not None
    files = [file for file in path.rglob("*") if file.is_file()]
    latest = max(
        (file for file in files if file.suffix == ".manifest"), key=lambda file: file.stat().st_mtime_ns
    )
    size = sum(file.stat().st_size for file in files)
    rows = dataset.count_rows()
    return (
        f"{rows:,} rows in {len(dataset.get_fragments()):,} fragments, "
        f"manifest {latest.stat().st_size / 1024:,.1f} KiB, {len(files):,} files, "
        f"{size / (rows * _DIMENSION * 4):.2f} x the vectors' bytes"
    )


if __name__ == "__main__":
    main()
