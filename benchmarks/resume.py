"""Measure the cost of a kill half-way: the killed run plus its re-run, against an undisturbed run.

    python -m benchmarks.resume [--folder /tmp] [--records 12000]

Both backfill the same texts with the bundled embedder, each into a store of its own. The killed run gets
SIGKILL when the cache has half of the vectors; the re-run is the same command. Work is the number of computed
vectors: those that the two runs committed, plus at most one checkpoint that the kill discarded.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

KERNEL = "embed:minilm"
_SPEC = """
name: resume
version: v1
sources:
  - {name: texts, modality: text, uri: texts.jsonl, record: {id: id, text: text}}
"""
WORDS = [
    "harbour",
    "violin",
    "lemon",
    "clock",
    "mountain",
    "train",
    "sofa",
    "coffee",
    "recipe",
    "boat",
    "snow",
    "string",
    "bee",
    "sun",
    "station",
    "road",
    "peel",
    "spring",
    "week",
    "sugar",
    "empty",
    "warm",
    "perfect",
    "closed",
    "early",
    "late",
    "quiet",
    "bright",
    "old",
    "narrow",
    "finds",
    "keeps",
    "leaves",
    "carries",
    "repairs",
    "hears",
    "follows",
    "paints",
    "sells",
]


def write_spec(folder: Path, records: int) -> Path:
    """Write texts and the spec of the dataset; return the spec's path."""
    dice = random.Random(0)
    lines = (
        json.dumps({"id": i, "text": f"{' '.join(dice.choices(WORDS, k=10))} {i}"}) for i in range(records)
    )
    (folder / "texts.jsonl").write_text("\n".join(lines) + "\n")
    path = folder / "resume.yaml"
    path.write_text(_SPEC)
    return path


def start(home: Path, *words: str) -> subprocess.Popen[str]:
    """Start the `mm` command with a store and Dagster home of its own."""
    environment = {**os.environ, "MM_STORE": str(home / "store"), "DAGSTER_HOME": str(home / "dagster")}
    command = [sys.executable, "-m", "mm_assets.cli.main", *words]
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )


def backfill(home: Path) -> tuple[float, dict[str, Any]]:
    """Run a backfill until it ends; return its seconds and result."""
    began = time.perf_counter()
    answer = start(home, "backfill", "resume@v1", "--json").communicate()[0]
    (cell,) = json.loads(answer)["cells"]
    assert cell["status"] == "published", cell
    return time.perf_counter() - began, cell


def count_vectors(home: Path) -> int:
    """Return the number of vectors in the cache."""
    import lance

    caches = list(home.glob("store/cache/embed-minilm/*.lance/_versions"))
    return int(lance.dataset(str(caches[0].parent)).count_rows()) if caches else 0


def kill_backfill(home: Path, limit: int) -> tuple[float, int]:
    """Kill a backfill when it has committed `limit` vectors; return its seconds and its committed vectors."""
    began = time.perf_counter()
    run = start(home, "backfill", "resume@v1", "--json")
    while count_vectors(home) < limit:
        assert run.poll() is None, "the run ended before it was killed; use more --records"
        time.sleep(0.1)
    run.send_signal(signal.SIGKILL)
    run.communicate()
    return time.perf_counter() - began, count_vectors(home)


def main() -> None:
    """Print times, vectors and both ratios."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, default=None)
    parser.add_argument("--records", type=int, default=40_000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        folder = Path(name)
        spec, (whole, broken) = write_spec(folder, arguments.records), (folder / "whole", folder / "broken")
        for home in (whole, broken):
            start(home, "register", str(spec)).communicate()
        undisturbed, one = backfill(whole)
        until, committed = kill_backfill(broken, arguments.records // 2)
        rest, other = backfill(broken)
        work, repeated = one["computed"][KERNEL], committed - other["reused"][KERNEL]
        print(f"undisturbed: {undisturbed:.1f} s, {work:,} vectors")
        computed = other["computed"][KERNEL]
        print(f"killed after {until:.1f} s with {committed:,} vectors committed")
        print(f"re-run: {rest:.1f} s, {computed:,} vectors")
        print(f"committed vectors that were computed again: {repeated:,}")
        print(f"ratio of vectors committed: {(committed + computed) / work:.3f}")
        print(f"ratio of time: {(until + rest) / undisturbed:.2f}")


if __name__ == "__main__":
    main()
