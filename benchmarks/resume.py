"""What a kill half-way costs: time and work of the killed run and its re-run together, against a run that nothing disturbed.

    python -m benchmarks.resume [--folder /tmp] [--records 12000]

Both backfill the same texts with the bundled embedder, each into a store of its own. The killed run is ended (SIGKILL) when the
cache holds half of the vectors; the re-run is the same command. Work is the vectors that were computed: those that the two runs
committed, and at most one checkpoint more, which the kill took.
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


def spec(folder: Path, records: int) -> Path:
    dice = random.Random(0)
    lines = (
        json.dumps({"id": i, "text": f"{' '.join(dice.choices(WORDS, k=10))} {i}"}) for i in range(records)
    )
    (folder / "texts.jsonl").write_text("\n".join(lines) + "\n")
    found = folder / "resume.yaml"
    found.write_text(
        "name: resume\nversion: v1\nsources:\n  - {name: texts, modality: text, uri: texts.jsonl, record: {id: id, text: text}}\n"
    )
    return found


def start(home: Path, *words: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "MM_STORE": str(home / "store"), "DAGSTER_HOME": str(home / "dagster")}
    command = [sys.executable, "-m", "mm_assets.cli.main", *words]
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )


def backfilled(home: Path) -> tuple[float, dict[str, Any]]:
    """Seconds and result of a backfill that runs to its end."""
    began = time.perf_counter()
    answer = start(home, "backfill", "resume@v1", "--json").communicate()[0]
    (cell,) = json.loads(answer)["cells"]
    assert cell["status"] == "published", cell
    return time.perf_counter() - began, cell


def vectors(home: Path) -> int:
    """Vectors that the cache holds."""
    import lance

    caches = list(home.glob("store/cache/embed-minilm/*.lance/_versions"))
    return int(lance.dataset(str(caches[0].parent)).count_rows()) if caches else 0


def killed(home: Path, vectors_wanted: int) -> tuple[float, int]:
    """Seconds until a run was killed, and the vectors it had committed."""
    began = time.perf_counter()
    run = start(home, "backfill", "resume@v1", "--json")
    while vectors(home) < vectors_wanted:
        assert run.poll() is None, "the run ended before it could be killed; give it more records"
        time.sleep(0.1)
    run.send_signal(signal.SIGKILL)
    run.communicate()
    return time.perf_counter() - began, vectors(home)


def main() -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--folder", type=Path, default=None)
    options.add_argument("--records", type=int, default=40_000)
    given = options.parse_args()
    with tempfile.TemporaryDirectory(dir=given.folder) as name:
        folder = Path(name)
        texts, (whole, broken) = spec(folder, given.records), (folder / "whole", folder / "broken")
        for home in (whole, broken):
            start(home, "register", str(texts)).communicate()
        undisturbed, one = backfilled(whole)
        until, committed = killed(broken, given.records // 2)
        rest, other = backfilled(broken)
        work, repeated = one["computed"][KERNEL], committed - other["reused"][KERNEL]
        print(f"undisturbed: {undisturbed:.1f} s, {work:,} vectors")
        print(
            f"killed after {until:.1f} s with {committed:,} vectors committed; re-run: {rest:.1f} s, {other['computed'][KERNEL]:,} vectors"
        )
        print(f"committed work that was repeated: {repeated:,} vectors")
        print(f"ratio of vectors committed: {(committed + other['computed'][KERNEL]) / work:.3f}")
        print(f"ratio of time: {(until + rest) / undisturbed:.2f}")


if __name__ == "__main__":
    main()
