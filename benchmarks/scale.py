"""Memory, time and files against the number of samples: texts from JSON lines to a published, indexed feature table.

Run: .venv/bin/python -m benchmarks.scale --counts 100000 1000000
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

from benchmarks.process_tree import Run, run
from benchmarks.sentences import write_records

_SPEC = """
name: scale
version: v1
embedders: {text: [wordllama]}
sources:
  - {name: sentences, modality: text, uri: sentences.jsonl, record: {id: id, text: text, label: topic}}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--counts", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--folder", type=Path, default=None, help="where data and stores lie; kept if given")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="mm-scale-") as scratch:
        folder = arguments.folder or Path(scratch)
        found = {count: _measure(folder, count) for count in arguments.counts}
    (least, first), *more = found.items()
    for count, (taken, files) in found.items():
        print(f"{count:>9,} texts: {taken.peak_mib:,.0f} MiB at the peak, {taken.seconds / count * 1e3:.3f} ms a text, {files:,} files")
    for count, (taken, _) in more:
        memory, pace = taken.peak_mib / first[0].peak_mib, (taken.seconds / count) / (first[0].seconds / least)
        print(f"{count:,} against {least:,}: peak memory x {memory:.2f}, time per text x {pace:.2f}")


def _measure(folder: Path, count: int) -> tuple[Run, int]:
    root = folder / f"{count}"
    root.mkdir(parents=True, exist_ok=True)
    write_records(folder / "corpus", root / "sentences.jsonl", count)
    (root / "dataset.yaml").write_text(_SPEC)
    environment = {"MM_STORE": str(root / "store"), "DAGSTER_HOME": str(root / "home")}
    mm = [sys.executable, "-m", "mm_assets.cli.main"]
    run([*mm, "register", str(root / "dataset.yaml")], environment)
    taken = run([*mm, "backfill", "scale@v1", "--json"], environment)
    print(json.dumps(json.loads(taken.output[taken.output.index("{") :])["cells"]), file=sys.stderr)
    return taken, sum(path.is_file() for path in (root / "store").rglob("*"))


if __name__ == "__main__":
    main()
