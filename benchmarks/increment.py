"""What a second version costs beside the first: nothing changed, and some of it; time, work and bytes written.

Run: .venv/bin/python -m benchmarks.increment --count 50000 --changed 500
     .venv/bin/python -m benchmarks.increment --count 10000 --changed 10 --kind files
     .venv/bin/python -m benchmarks.increment --count 1000 --changed 10 --kind pictures --embedder conse
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import embedding, ratios
from benchmarks.process_tree import run
from benchmarks.ratios import Row
from benchmarks.sentences import sentences

_SPEC = """
name: {name}
version: {version}
embedders: {{{modality}: [{embedder}]}}
sources:
  - {{name: all, modality: {modality}, {source}}}
"""
_MM = [sys.executable, "-m", "mm_assets.cli.main"]


@dataclass(frozen=True)
class Kind:
    """What a dataset is made of.

    Attributes:
        items: so many different samples, made in or out of a folder that is kept.
        write: the samples of a version into the dataset's folder.
    """

    noun: str
    modality: str
    source: str
    items: Callable[[Path, int], Sequence[Any]]
    write: Callable[[Path, Sequence[Any]], None]


@dataclass(frozen=True)
class Taken:
    """What a backfill took: seconds, and bytes that the store grew by."""

    seconds: float
    written: int = 0

    def beyond(self, start: Taken) -> float:
        """Seconds beside those that a version of ten samples takes for the same."""
        return max(0.0, self.seconds - start.seconds)


@dataclass(frozen=True)
class Found:
    """A first run, the same again and a version that differs in part: of many samples, and of ten (the fixed start of each)."""

    first: Taken
    again: Taken
    changed: Taken
    start_again: Taken
    start_changed: Taken
    parts: dict[str, tuple[int, int]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=50_000, help="samples")
    parser.add_argument("--changed", type=int, default=500, help="samples that differ in the second version")
    parser.add_argument(
        "--kind", choices=KINDS, default="records", help="JSON lines, a file for each text, or PNG"
    )
    parser.add_argument("--embedder", default="wordllama")
    parser.add_argument(
        "--corpus", type=Path, default=embedding.FOLDER, help="where what is worked on is kept between runs"
    )
    arguments = parser.parse_args()
    kind = KINDS[arguments.kind]
    found = measured(kind, arguments.corpus, arguments.count, arguments.changed, arguments.embedder)
    first = found.first
    print(
        f"first run of {arguments.count:,} {kind.noun}: {first.seconds:.1f} s, {first.written / 2**20:,.1f} MiB"
    )
    for name, later, start in (
        ("no change", found.again, found.start_again),
        (f"{arguments.changed:,} changed", found.changed, found.start_changed),
    ):
        beside = f"{later.beyond(start) / first.seconds:.3f} beside {start.seconds:.1f} s that ten take"
        print(f"{name}: {later.seconds / first.seconds:.3f} of the first run; {beside}")
    print(f"bytes written by it: {found.changed.written / first.written:.3f} of the first")
    for part, (before, more) in sorted(found.parts.items(), key=lambda item: -item[1][1]):
        print(f"  {part}: {more / 2**20:,.2f} MiB, {more / max(1, before):.3f} of the first")


def rows(share: float) -> Iterator[Row]:
    """20,000 sentences and 3,000 PNG with the default embedders; what ten take for the same is the fixed start, reported beside."""
    for kind, embedder, most in ((KINDS["records"], "minilm", 20_000), (KINDS["pictures"], "conse", 3_000)):
        count = max(200, round(most * share))
        found = [measured(kind, embedding.FOLDER, count, count // 100, embedder) for _ in range(ratios.PAIRS)]
        for name, start, beside, goal in (
            ("no change", "start_again", "again", 0.02),
            ("1% new", "start_changed", "changed", 0.03),
        ):
            starts = [getattr(each, start).seconds for each in found]
            print(
                f"{kind.noun}, {name}: a fixed start of {min(starts):.1f} to {max(starts):.1f} s",
                file=sys.stderr,
            )
            extra = [
                getattr(each, beside).beyond(getattr(each, start)) / each.first.seconds for each in found
            ]
            yield ratios.row(f"{name}, of a first run of {count:,} {kind.noun}", extra, goal=goal, sense="<=")
            fixed = [each_start / each.first.seconds for each_start, each in zip(starts, found, strict=True)]
            yield ratios.row(f"{name}, the fixed start beside it, {kind.noun}", fixed, goal=None, sense="<=")


def measured(kind: Kind, corpus: Path, count: int, changed: int, embedder: str) -> Found:
    """In a store of its own; the ten samples go first, so that they pay for whatever happens once in a store."""
    items = kind.items(corpus, count + changed)
    with tempfile.TemporaryDirectory(prefix="mm-increment-", dir=corpus) as scratch:
        folder = Path(scratch)
        environment = {"MM_STORE": str(folder / "store"), "DAGSTER_HOME": str(folder / "home")}
        few = _Dataset("few", folder / "few", environment, items[: 10 + 1], 10, embedder, kind)
        many = _Dataset("many", folder / "many", environment, items, count, embedder, kind)
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
    """A dataset, of which a version may take some samples from behind the first `count`."""

    name: str
    folder: Path
    environment: dict[str, str]
    items: Sequence[Any]
    count: int
    embedder: str
    kind: Kind

    def version(self, name: str, changed: int) -> Taken:
        """The backfill of a version in which so many samples differ from the first."""
        self.folder.mkdir(exist_ok=True)
        wanted = [self.items[self.count + i if i < changed else i] for i in range(self.count)]
        self.kind.write(self.folder, wanted)
        spec = self.folder / f"{name}.yaml"
        wants = {"modality": self.kind.modality, "embedder": self.embedder, "source": self.kind.source}
        spec.write_text(_SPEC.format(name=self.name, version=name, **wants))
        run([*_MM, "register", str(spec)], self.environment)
        return self.backfill(name)

    def backfill(self, version: str) -> Taken:
        store = Path(self.environment["MM_STORE"])
        before = sum(_parts(store).values())
        taken = run([*_MM, "backfill", f"{self.name}@{version}", "--json"], self.environment)
        cell = json.loads(taken.output[taken.output.index("{") :])["cells"][0]
        print(
            f"{self.name}@{version}: {cell['status']}, computed {cell['computed']}, {taken.seconds:.1f} s",
            file=sys.stderr,
            flush=True,
        )
        return Taken(taken.seconds, sum(_parts(store).values()) - before)


def _texts(corpus: Path, count: int) -> Sequence[str]:
    return list(sentences(corpus / "packages", count))


def _pictures(corpus: Path, count: int) -> Sequence[Path]:
    return sorted((embedding.prepared("image", count, corpus) / "inputs").iterdir())


def _write_records(folder: Path, texts: Sequence[str]) -> None:
    rows = (json.dumps({"id": i, "text": text}) for i, text in enumerate(texts))
    (folder / "all.jsonl").write_text("\n".join(rows) + "\n")


def _write_files(folder: Path, texts: Sequence[str]) -> None:
    """Files whose texts are as they were keep their times."""
    (folder / "all").mkdir(exist_ok=True)
    for i, text in enumerate(texts):
        path = folder / "all" / f"{i:06}.txt"
        if not path.exists() or path.read_text("utf-8") != text:
            path.write_text(text, "utf-8")


def _link_files(folder: Path, files: Sequence[Path]) -> None:
    """As above; a picture is a second name of the file that it is."""
    (folder / "all").mkdir(exist_ok=True)
    for i, file in enumerate(files):
        path = folder / "all" / f"{i:06}{file.suffix}"
        if not path.exists() or not path.samefile(file):
            path.unlink(missing_ok=True)
            os.link(file, path)


KINDS = {
    "records": Kind("texts", "text", "uri: all.jsonl, record: {id: id, text: text}", _texts, _write_records),
    "files": Kind("texts", "text", "uri: 'all/*.txt'", _texts, _write_files),
    "pictures": Kind("PNG", "image", "uri: 'all/*.png'", _pictures, _link_files),
}


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
