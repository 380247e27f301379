"""What a second version costs beside the first: nothing changed, 1% new, ten files of ten thousand; time, work and bytes written.

Run: .venv/bin/python -m benchmarks.increment --count 50000
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

from benchmarks.process_tree import run
from benchmarks.sentences import sentences

_SPEC = """
name: notes
version: {version}
embedders: {{text: [{embedder}]}}
sources:
  - {{name: sentences, modality: text, uri: sentences.jsonl, record: {{id: id, text: text}}}}
"""
_MM = [sys.executable, "-m", "mm_assets.cli.main"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=50_000, help="texts")
    parser.add_argument("--embedder", default="wordllama")
    parser.add_argument("--corpus", type=Path, default=None, help="where the sentences are kept between runs")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="mm-increment-") as scratch:
        folder = Path(scratch)
        texts = list(sentences(arguments.corpus or folder / "corpus", arguments.count + arguments.count // 50))
        environment = {"MM_STORE": str(folder / "store"), "DAGSTER_HOME": str(folder / "home")}
        start = run([*_MM, "backfill", "--help"], environment).seconds

        def version(name: str, changed: int) -> tuple[float, int]:
            """Seconds and bytes written by the backfill of a version in which so many texts differ from the first."""
            rows = [{"id": i, "text": texts[arguments.count + i if i < changed else i]} for i in range(arguments.count)]
            (folder / "sentences.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
            spec = folder / f"{name}.yaml"
            spec.write_text(_SPEC.format(version=name, embedder=arguments.embedder))
            run([*_MM, "register", str(spec)], environment)
            return backfill(name)

        def backfill(name: str) -> tuple[float, int]:
            before = _bytes(folder / "store")
            taken = run([*_MM, "backfill", f"notes@{name}", "--json"], environment)
            cell = json.loads(taken.output[taken.output.index("{") :])["cells"][0]
            print(f"{name}: {cell['status']}, computed {cell['computed']}, {taken.seconds:.1f} s", flush=True)
            return taken.seconds, _bytes(folder / "store") - before

        first, written = version("v1", 0)
        again, _ = backfill("v1")
        parts = _parts(folder / "store")
        new, more = version("v2", arguments.count // 100)
        grown = {part: size - parts.get(part, 0) for part, size in _parts(folder / "store").items()}
    print(f"start of the command alone: {start:.1f} s; first run of {arguments.count:,} texts: {first:.1f} s, {written / 2**20:,.1f} MiB")
    print(f"no change: {again / first:.3f} of the first run, {(again - start) / first:.3f} without the start")
    print(f"1% new: {new / first:.3f} of the first run; bytes written: {more / written:.3f} of the first")
    for part, size in sorted(grown.items(), key=lambda item: -item[1]):
        print(f"  {part}: {size / 2**20:,.2f} MiB, {size / max(1, parts.get(part, 0)):.3f} of the first")


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _parts(folder: Path) -> dict[str, int]:
    """Bytes by part of the store."""
    found: dict[str, int] = {}
    for path in folder.rglob("*"):
        if path.is_file():
            part = path.relative_to(folder).parts[0]
            found[part] = found.get(part, 0) + path.stat().st_size
    return found


if __name__ == "__main__":
    main()
