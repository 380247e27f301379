"""What a second version costs beside the first: nothing changed, and some of it; time, work and bytes written.

Run: .venv/bin/python -m benchmarks.increment --count 50000 --changed 500
     .venv/bin/python -m benchmarks.increment --count 10000 --changed 10 --files
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks import ratios
from benchmarks.process_tree import run
from benchmarks.ratios import Row
from benchmarks.sentences import sentences

_SPEC = """
name: {name}
version: {version}
embedders: {{text: [{embedder}]}}
sources:
  - {{name: sentences, modality: text, {source}}}
"""
_RECORDS, _FILES = "uri: sentences.jsonl, record: {id: id, text: text}", "uri: 'sentences/*.txt'"
_MM = [sys.executable, "-m", "mm_assets.cli.main"]


@dataclass(frozen=True)
class Taken:
    """What a backfill took: seconds, and bytes that the store grew by."""

    seconds: float
    written: int = 0

    def beyond(self, start: Taken) -> float:
        """Seconds beside those that a version of ten texts takes for the same."""
        return max(0.0, self.seconds - start.seconds)


@dataclass(frozen=True)
class Found:
    """A first run, the same again and a version that differs in part: of many texts, and of ten (the fixed start of each)."""

    first: Taken
    again: Taken
    changed: Taken
    start_again: Taken
    start_changed: Taken
    parts: dict[str, tuple[int, int]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=50_000, help="texts")
    parser.add_argument("--changed", type=int, default=500, help="texts that differ in the second version")
    parser.add_argument("--files", action="store_true", help="a file for each text, instead of JSON lines")
    parser.add_argument("--embedder", default="wordllama")
    parser.add_argument("--corpus", type=Path, default=None, help="where the sentences are kept between runs")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="mm-increment-") as scratch:
        corpus = arguments.corpus or Path(scratch) / "corpus"
        found = measured(corpus, arguments.count, arguments.changed, arguments.embedder, arguments.files)
    first = found.first
    print(f"first run of {arguments.count:,} texts: {first.seconds:.1f} s, {first.written / 2**20:,.1f} MiB")
    for name, later, start in (
        ("no change", found.again, found.start_again),
        (f"{arguments.changed:,} changed", found.changed, found.start_changed),
    ):
        beside = f"{later.beyond(start) / first.seconds:.3f} beside {start.seconds:.1f} s that ten texts take"
        print(f"{name}: {later.seconds / first.seconds:.3f} of the first run; {beside}")
    print(f"bytes written by it: {found.changed.written / first.written:.3f} of the first")
    for part, (before, more) in sorted(found.parts.items(), key=lambda item: -item[1][1]):
        print(f"  {part}: {more / 2**20:,.2f} MiB, {more / max(1, before):.3f} of the first")


def rows(share: float) -> Iterator[Row]:
    """20,000 sentences with the default embedder; what ten texts take for the same is the fixed start, reported beside."""
    count = max(200, round(20_000 * share))
    with tempfile.TemporaryDirectory(prefix="mm-increment-") as scratch:
        found = [measured(Path(scratch), count, count // 100, "minilm", False) for _ in range(ratios.PAIRS)]
    for name, start, beside, goal in (
        ("no change", "start_again", "again", 0.02),
        ("1% new", "start_changed", "changed", 0.03),
    ):
        starts = [getattr(each, start).seconds for each in found]
        print(f"{name}: a fixed start of {min(starts):.1f} to {max(starts):.1f} s", file=sys.stderr)
        extra = [getattr(each, beside).beyond(getattr(each, start)) / each.first.seconds for each in found]
        yield ratios.row(f"{name}, of a first run of {count:,} texts", extra, goal=goal, sense="<=")
        fixed = [each_start / each.first.seconds for each_start, each in zip(starts, found, strict=True)]
        yield ratios.row(f"{name}, the fixed start beside it", fixed, goal=None, sense="<=")


def measured(corpus: Path, count: int, changed: int, embedder: str, files: bool) -> Found:
    """In a store of its own; the ten texts go first, so that they pay for whatever happens once in a store."""
    with tempfile.TemporaryDirectory(prefix="mm-increment-") as scratch:
        folder = Path(scratch)
        environment = {"MM_STORE": str(folder / "store"), "DAGSTER_HOME": str(folder / "home")}
        few = _Dataset("few", folder / "few", environment, list(sentences(corpus, 10 + 1)), 10, embedder, files)
        many = _Dataset("many", folder / "many", environment, list(sentences(corpus, count + changed)), count, embedder, files)
        few.version("v1", 0)
        start_again, start_changed = few.backfill("v1"), few.version("v2", 1)
        first, again = many.version("v1", 0), many.backfill("v1")
        before = _parts(folder / "store")
        new = many.version("v2", changed)
        after = _parts(folder / "store")
    parts = {part: (before.get(part, 0), size - before.get(part, 0)) for part, size in after.items()}
    return Found(first, again, new, start_again, start_changed, parts)


@dataclass(frozen=True)
class _Dataset:
    """A dataset of texts, of which a version may take some from behind the first `count`."""

    name: str
    folder: Path
    environment: dict[str, str]
    texts: list[str]
    count: int
    embedder: str
    files: bool

    def version(self, name: str, changed: int) -> Taken:
        """The backfill of a version in which so many texts differ from the first."""
        self.folder.mkdir(exist_ok=True)
        wanted = [self.texts[self.count + i if i < changed else i] for i in range(self.count)]
        (_write_files if self.files else _write_records)(self.folder, wanted)
        spec = self.folder / f"{name}.yaml"
        source = _FILES if self.files else _RECORDS
        spec.write_text(_SPEC.format(name=self.name, version=name, embedder=self.embedder, source=source))
        run([*_MM, "register", str(spec)], self.environment)
        return self.backfill(name)

    def backfill(self, version: str) -> Taken:
        store = Path(self.environment["MM_STORE"])
        before = sum(_parts(store).values())
        taken = run([*_MM, "backfill", f"{self.name}@{version}", "--json"], self.environment)
        cell = json.loads(taken.output[taken.output.index("{") :])["cells"][0]
        print(f"{self.name}@{version}: {cell['status']}, computed {cell['computed']}, {taken.seconds:.1f} s", file=sys.stderr, flush=True)
        return Taken(taken.seconds, sum(_parts(store).values()) - before)


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
