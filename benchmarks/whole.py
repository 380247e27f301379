"""Compare all twelve stages, from files to a published table, with the embedding loop, start included.

Run: .venv/bin/python -m benchmarks.whole [--share 0.1]

The platform's time is `mm register` and `mm backfill` in an empty store with the default embedder: ingestion,
probes, curation with near-duplicates, segments, vectors, checks, index, publish, report. The loop
(`benchmarks.embedding_loop`) decodes, embeds and writes one Lance table; its process is timed from start to
end.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from benchmarks.embedding_inputs import FOLDER, WORKS, prepare
from benchmarks.process_tree import run
from benchmarks.ratios import Row, measure_pairs

_SPEC = """
name: whole
version: v1
sources:
  - {{name: files, modality: {modality}, {source}}}
"""
_NOUNS = {"text": "texts", "image": "PNG"}
_MM = [sys.executable, "-m", "mm_assets.cli.main"]


def rows(share: float) -> Iterator[Row]:
    """Yield a row for texts and one for pictures."""
    for name, noun in _NOUNS.items():
        count = max(32, round(WORKS[name].count * share))
        place = prepare(name, count, FOLDER)
        yield measure_pairs(
            f"all twelve stages, {count:,} {noun}, start included",
            lambda name=name, place=place: _time_platform(name, place),  # type: ignore[misc]
            lambda name=name, place=place: _time_loop(name, place),  # type: ignore[misc]
            goal=0.75,
            sense=">=",
        )


def _time_loop(name: str, place: Path) -> float:
    """Return the seconds of the loop's whole process."""
    return run(
        [sys.executable, "-m", "benchmarks.embedding", name, "--side", "limit", "--place", str(place)]
    ).seconds


def _time_platform(name: str, place: Path) -> float:
    """Return the seconds of registering and backfilling the inputs in an empty store."""
    with tempfile.TemporaryDirectory(prefix="mm-whole-") as scratch:
        folder = Path(scratch)
        spec = folder / "dataset.yaml"
        spec.write_text(_SPEC.format(modality=name, source=_source(name, place)))
        environment = {"MM_STORE": str(folder / "store"), "DAGSTER_HOME": str(folder / "home")}
        registered = run([*_MM, "register", str(spec)], environment)
        taken = run([*_MM, "backfill", "whole@v1", "--json"], environment)
        cell = json.loads(taken.output[taken.output.index("{") :])["cells"][0]
        if cell["status"] != "published":
            raise RuntimeError(f"{name}: {cell}")
        print(
            f"{name}: computed {cell['computed']}, {registered.seconds + taken.seconds:.1f} s",
            file=sys.stderr,
            flush=True,
        )
        return registered.seconds + taken.seconds


def _source(name: str, place: Path) -> str:
    """Return the loop's inputs as a source of a spec; texts are written as JSON lines."""
    if name != "text":
        return f"uri: '{place}/inputs/*.png'"
    path = place / "texts.jsonl"
    if not path.exists():
        with pa.OSFile(str(place / "requests.arrow")) as source:
            texts = pa.ipc.open_file(source).read_all()["text"].to_pylist()
        path.write_text(
            "".join(json.dumps({"id": number, "text": text}) + "\n" for number, text in enumerate(texts))
        )
    return f"uri: '{path}', record: {{id: id, text: text}}"


def main() -> None:
    """Print both rows."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--share", type=float, default=0.1)
    for row in rows(parser.parse_args().share):
        print(
            f"{row.name}: {row.ratio:.2f} ({row.low:.2f} to {row.high:.2f}), goal {row.sense} {row.goal}",
            flush=True,
        )


if __name__ == "__main__":
    main()
