"""Compare a second version with the first, unchanged and partly changed: time, work and bytes written.

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

from benchmarks import ratios
from benchmarks.embedding_inputs import FOLDER, prepare
from benchmarks.process_tree import run
from benchmarks.ratios import Row
from benchmarks.sentences import sentences
from mm_resources.catalog import Catalog
from mm_resources.cell import Cell

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
    """A kind of dataset.

    Attributes:
        noun: plural of a sample, part of row names.
        modality: modality of its source.
        source: the source's location in the spec.
        items: returns a number of distinct samples, given the corpus folder.
        write: writes the samples of a version into the dataset's folder.
    """

    noun: str
    modality: str
    source: str
    items: Callable[[Path, int], Sequence[Any]]
    write: Callable[[Path, Sequence[Any]], None]


@dataclass(frozen=True)
class Cost:
    """Cost of a backfill: seconds, and bytes added to the store."""

    seconds: float
    written: int = 0

    def beyond(self, start: Cost) -> float:
        """Return the seconds above those of a version of ten samples."""
        return max(0.0, self.seconds - start.seconds)


@dataclass(frozen=True)
class Measurement:
    """Costs of a first run, of the same run again, and of a version that differs in part.

    Attributes:
        first: the first run of many samples.
        again: the same run again.
        changed: the run of a version with changed samples.
        start_again: as `again`, for ten samples: its fixed start.
        start_changed: as `changed`, for ten samples: its fixed start.
        parts: for each part of the store, bytes before and bytes added by `changed`.
        table_cpu: CPU seconds of the stage `feature_table` in `first` and in `changed`.
    """

    first: Cost
    again: Cost
    changed: Cost
    start_again: Cost
    start_changed: Cost
    parts: dict[str, tuple[int, int]]
    table_cpu: tuple[float, float]

    @property
    def stage_bytes(self) -> float:
        """Bytes of stages' tables that `changed` adds, as a share of those of before."""
        before, more = self.parts["stages"]
        return more / before

    @property
    def table_bytes(self) -> float:
        """Bytes of feature tables, indexes included, that `changed` adds, as a share of those of before."""
        before, more = self.parts["features"]
        return more / before


def main() -> None:
    """Print the ratios to the first run, and the bytes written by part of the store."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=50_000, help="samples of each version")
    parser.add_argument("--changed", type=int, default=500, help="samples that differ in the second version")
    parser.add_argument(
        "--kind", choices=KINDS, default="records", help="JSON lines, one file for each text, or PNG"
    )
    parser.add_argument("--embedder", default="wordllama")
    parser.add_argument("--corpus", type=Path, default=FOLDER, help="cache of texts and pictures")
    arguments = parser.parse_args()
    kind = KINDS[arguments.kind]
    found = measure(kind, arguments.corpus, arguments.count, arguments.changed, arguments.embedder)
    first, mib = found.first, found.first.written / 2**20
    print(f"first run of {arguments.count:,} {kind.noun}: {first.seconds:.1f} s, {mib:,.1f} MiB")
    for name, later, start in (
        ("no change", found.again, found.start_again),
        (f"{arguments.changed:,} changed", found.changed, found.start_changed),
    ):
        beside = f"{later.beyond(start) / first.seconds:.3f} above the {start.seconds:.1f} s of ten samples"
        print(f"{name}: {later.seconds / first.seconds:.3f} of the first run; {beside}")
    cpu = found.table_cpu
    print(f"CPU of feature_table: {cpu[0]:.2f} s, then {cpu[1]:.2f} s ({cpu[1] / cpu[0]:.3f})")
    print(f"bytes written: {found.changed.written / first.written:.3f} of the first")
    for part, (before, more) in sorted(found.parts.items(), key=lambda item: -item[1][1]):
        print(f"  {part}: {more / 2**20:,.2f} MiB, {more / max(1, before):.3f} of the first")


def rows(share: float) -> Iterator[Row]:
    """Measure 20,000 sentences and 3,000 PNG with the default embedders.

    The fixed start, the time of the same work on ten samples, is subtracted and reported as a row of its own.
    """
    for kind, embedder, most in ((KINDS["records"], "minilm", 20_000), (KINDS["pictures"], "conse", 3_000)):
        count = max(200, round(most * share))
        measurements = [measure(kind, FOLDER, count, count // 100, embedder) for _ in range(ratios.PAIRS)]
        for name, start, beside, goal in (
            ("no change", "start_again", "again", 0.02),
            ("1% new", "start_changed", "changed", 0.03),
        ):
            starts = [getattr(each, start).seconds for each in measurements]
            print(
                f"{kind.noun}, {name}: a fixed start of {min(starts):.1f} to {max(starts):.1f} s",
                file=sys.stderr,
            )
            extra = [
                getattr(each, beside).beyond(getattr(each, start)) / each.first.seconds
                for each in measurements
            ]
            yield ratios.row(f"{name}, of a first run of {count:,} {kind.noun}", extra, goal=goal, sense="<=")
            fixed = [seconds / each.first.seconds for seconds, each in zip(starts, measurements, strict=True)]
            yield ratios.row(f"{name}, the fixed start beside it, {kind.noun}", fixed, goal=None, sense="<=")
        everything = [each.changed.written / each.first.written for each in measurements]
        yield ratios.row(f"1% new, bytes written, {kind.noun}", everything, goal=0.03, sense="<=")
        stages = [each.stage_bytes for each in measurements]
        yield ratios.row(f"1% new, bytes of the stages' tables, {kind.noun}", stages, goal=0.03, sense="<=")
        written = [each.table_bytes for each in measurements]
        yield ratios.row(f"1% new, bytes of the feature table, {kind.noun}", written, goal=0.03, sense="<=")
        spent = [each.table_cpu[1] / each.table_cpu[0] for each in measurements]
        yield ratios.row(f"1% new, CPU of feature_table, {kind.noun}", spent, goal=None, sense="<=")


def measure(kind: Kind, corpus: Path, count: int, changed: int, embedder: str) -> Measurement:
    """Run all versions in a new store; ten samples go first, so that they bear its one-time costs."""
    items = kind.items(corpus, count + changed)
    with tempfile.TemporaryDirectory(prefix="mm-increment-", dir=corpus) as scratch:
        folder = Path(scratch)
        environment = {"MM_STORE": str(folder / "store"), "DAGSTER_HOME": str(folder / "home")}
        few = Dataset("few", folder / "few", environment, items[: 10 + 1], 10, embedder, kind)
        many = Dataset("many", folder / "many", environment, items, count, embedder, kind)
        few.version("v1", 0)
        start_again, start_changed = few.backfill("v1"), few.version("v2", 1)
        first, again = many.version("v1", 0), many.backfill("v1")
        before = _bytes_by_part(folder / "store")
        new = many.version("v2", changed)
        after = _bytes_by_part(folder / "store")
        cpu = tuple(_table_cpu(folder / "store", many, version) for version in ("v1", "v2"))
    parts = {part: (before.get(part, 0), size - before.get(part, 0)) for part, size in after.items()}
    return Measurement(first, again, new, start_again, start_changed, parts, (cpu[0], cpu[1]))


def _table_cpu(store: Path, dataset: Dataset, version: str) -> float:
    """Return the CPU seconds of the stage `feature_table` in a version's first run, by the ledger."""
    cell = Cell(dataset.name, version, dataset.kind.modality)
    works = Catalog.open(store).ledger.stage_work(cell)
    return next(work.usage.cpu_seconds for work in works if work.stage == "feature_table")


@dataclass(frozen=True)
class Dataset:
    """A dataset of `count` samples; changed versions take some from the items beyond the first `count`."""

    name: str
    folder: Path
    environment: dict[str, str]
    items: Sequence[Any]
    count: int
    embedder: str
    kind: Kind

    def version(self, name: str, changed: int) -> Cost:
        """Register and backfill a version in which `changed` samples differ from the first version."""
        self.folder.mkdir(exist_ok=True)
        samples = [self.items[self.count + i if i < changed else i] for i in range(self.count)]
        self.kind.write(self.folder, samples)
        spec = self.folder / f"{name}.yaml"
        fields = {"modality": self.kind.modality, "embedder": self.embedder, "source": self.kind.source}
        spec.write_text(_SPEC.format(name=self.name, version=name, **fields))
        run([*_MM, "register", str(spec)], self.environment)
        return self.backfill(name)

    def backfill(self, version: str) -> Cost:
        store = Path(self.environment["MM_STORE"])
        before = sum(_bytes_by_part(store).values())
        taken = run([*_MM, "backfill", f"{self.name}@{version}", "--json"], self.environment)
        cell = json.loads(taken.output[taken.output.index("{") :])["cells"][0]
        print(
            f"{self.name}@{version}: {cell['status']}, computed {cell['computed']}, {taken.seconds:.1f} s",
            file=sys.stderr,
            flush=True,
        )
        return Cost(taken.seconds, sum(_bytes_by_part(store).values()) - before)


def _texts(corpus: Path, count: int) -> Sequence[str]:
    return list(sentences(corpus / "packages", count))


def _pictures(corpus: Path, count: int) -> Sequence[Path]:
    return sorted((prepare("image", count, corpus) / "inputs").iterdir())


def _write_records(folder: Path, texts: Sequence[str]) -> None:
    rows = (json.dumps({"id": i, "text": text}) for i, text in enumerate(texts))
    (folder / "all.jsonl").write_text("\n".join(rows) + "\n")


def _write_files(folder: Path, texts: Sequence[str]) -> None:
    """Write one file for each text; a file with the same text is left alone, with its modification time."""
    (folder / "all").mkdir(exist_ok=True)
    for i, text in enumerate(texts):
        path = folder / "all" / f"{i:06}.txt"
        if not path.exists() or path.read_text("utf-8") != text:
            path.write_text(text, "utf-8")


def _link_files(folder: Path, files: Sequence[Path]) -> None:
    """Link one file for each picture; a link to the same file is left alone, with its modification time."""
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


def _bytes_by_part(folder: Path) -> dict[str, int]:
    """Return the bytes of each part of the store."""
    sizes: dict[str, int] = {}
    for path in folder.rglob("*"):
        if path.is_file():
            part = path.relative_to(folder).parts[0]
            sizes[part] = sizes.get(part, 0) + path.stat().st_size
    return sizes


if __name__ == "__main__":
    main()
