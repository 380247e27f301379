"""What a second version costs beside the first: nothing changed, and some of it; time, work and bytes written.

Run: .venv/bin/python -m benchmarks.increment --count 50000 --changed 500
     .venv/bin/python -m benchmarks.increment --count 10000 --changed 10 --files
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
  - {{name: sentences, modality: text, {source}}}
"""
_RECORDS, _FILES = "uri: sentences.jsonl, record: {id: id, text: text}", "uri: 'sentences/*.txt'"
_MM = [sys.executable, "-m", "mm_assets.cli.main"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=50_000, help="texts")
    parser.add_argument("--changed", type=int, default=500, help="texts that differ in the second version")
    parser.add_argument("--files", action="store_true", help="a file for each text, instead of JSON lines")
    parser.add_argument("--embedder", default="wordllama")
    parser.add_argument("--corpus", type=Path, default=None, help="where the sentences are kept between runs")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="mm-increment-") as scratch:
        folder = Path(scratch)
        texts = list(sentences(arguments.corpus or folder / "corpus", arguments.count + arguments.changed))
        environment = {"MM_STORE": str(folder / "store"), "DAGSTER_HOME": str(folder / "home")}
        start = run([*_MM, "backfill", "--help"], environment).seconds

        def version(name: str, changed: int) -> tuple[float, int]:
            """Seconds and bytes written by the backfill of a version in which so many texts differ from the first."""
            wanted = [texts[arguments.count + i if i < changed else i] for i in range(arguments.count)]
            (_write_files if arguments.files else _write_records)(folder, wanted)
            spec = folder / f"{name}.yaml"
            spec.write_text(_SPEC.format(version=name, embedder=arguments.embedder, source=_FILES if arguments.files else _RECORDS))
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
        new, more = version("v2", arguments.changed)
        grown = {part: size - parts.get(part, 0) for part, size in _parts(folder / "store").items()}
    print(f"start of the command alone: {start:.1f} s; first run of {arguments.count:,} texts: {first:.1f} s, {written / 2**20:,.1f} MiB")
    print(f"no change: {again / first:.3f} of the first run, {(again - start) / first:.3f} without the start")
    print(f"{arguments.changed:,} changed: {new / first:.3f} of the first run, {(new - start) / first:.3f} without the start")
    print(f"bytes written by it: {more / written:.3f} of the first")
    for part, size in sorted(grown.items(), key=lambda item: -item[1]):
        print(f"  {part}: {size / 2**20:,.2f} MiB, {size / max(1, parts.get(part, 0)):.3f} of the first")


def _write_records(folder: Path, texts: list[str]) -> None:
    rows = (json.dumps({"id": i, "text": text}) for i, text in enumerate(texts))
    (folder / "sentences.jsonl").write_text("\n".join(rows) + "\n")


def _write_files(folder: Path, texts: list[str]) -> None:
    """Files whose texts are as they were keep their times."""
    (folder / "sentences").mkdir(exist_ok=True)
    for i, text in enumerate(texts):
        path = folder / "sentences" / f"{i:06}.txt"
        if not path.exists() or path.read_text("utf-8") != text:
            path.write_text(text, "utf-8")


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
