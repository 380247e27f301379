"""Near-duplicates of texts: rate and memory against computing their signatures alone, precision and recall against exact Jaccard.

Run: .venv/bin/python -m benchmarks.near_duplicates --counts 100000 1000000
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks import ratios
from benchmarks.process_tree import run
from benchmarks.ratios import Row
from benchmarks.sentences import sentences
from mm_embed_kernels.identity import sample_id
from mm_embed_kernels.rules.near_duplicate_text import NearDuplicateText
from mm_embed_kernels.similarity import shingles
from mm_embed_kernels.sql import numbered

_PART = 16_384
_SAMPLE = pa.schema(
    [
        ("sample_id", pa.string()),
        ("key", pa.string()),
        ("characters", pa.int64()),
        ("minhash", pa.binary()),
        ("shingles", pa.binary()),
    ]
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--counts", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--folder", type=Path, default=None, help="where the corpus lies; kept if given")
    parser.add_argument("--one", choices=STEPS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="mm-near-") as scratch:
        folder = arguments.folder or Path(scratch)
        if arguments.one:
            print(json.dumps(STEPS[arguments.one](folder, arguments.counts[0])))
            return
        for count in arguments.counts:
            _report(folder, count)
        print(
            "{pairs:,} pairs of {texts:,} texts: precision {precision:.4f}, recall {recall:.4f}".format(
                **_accuracy(folder)
            )
        )


def rows(share: float) -> Iterator[Row]:
    """The library's signatures alone against them and the rule, and against all that the platform does: the probe's own
    signatures, which fold case and white space first and keep a sketch for the comparison, and the rule.
    """
    with tempfile.TemporaryDirectory(prefix="mm-near-") as scratch:
        folder = Path(scratch)
        # A million takes minutes: its pairs differ by less than those of a tenth of it.
        for count, pairs in ((100_000, ratios.PAIRS), (1_000_000, 1)):
            texts = max(2_000, round(count * share))
            found = [_steps(folder, texts) for _ in range(pairs)]
            for what, step in (("signatures and rule", "alone"), ("with sketches", "probed")):
                shares = (
                    each["alone"]["seconds"] / (each[step]["seconds"] + each["grouped"]["seconds"])
                    for each in found
                )
                yield ratios.row(
                    f"near-duplicate text, {texts:,} documents, {what}", shares, goal=0.5, sense=">="
                )
        accuracy = _accuracy(folder, max(200, round(2_000 * share)))
        for name in ("precision", "recall"):
            yield ratios.row(f"near-duplicate text, {name}", [accuracy[name]], goal=0.95, sense=">=")


def _steps(folder: Path, count: int) -> dict[str, dict[str, Any]]:
    """Each step in a process of its own, so that each has its own peak."""
    found = {}
    for step in STEPS:
        command = [
            sys.executable,
            "-m",
            "benchmarks.near_duplicates",
            "--one",
            step,
            "--counts",
            str(count),
            "--folder",
            str(folder),
        ]
        # As `lance_io` has it in the platform's own processes.
        taken = run(command, {"MALLOC_ARENA_MAX": "2"})
        found[step] = {**json.loads(taken.output.splitlines()[-1]), "peak": round(taken.peak_mib)}
        print(f"{count:,} {step}: {found[step]}", file=sys.stderr)
    return found


def _report(folder: Path, count: int) -> None:
    found = _steps(folder, count)
    alone, probed, group = found["alone"], found["probed"], found["grouped"]
    print(f"{count:,} texts, {group['grouped']:,} of them in groups; peak {group['peak']:,.0f} MiB")
    for name in ("seconds", "cpu"):
        rule, whole = alone[name] + group[name], probed[name] + group[name]
        print(
            f"  {name}: signatures alone {alone[name]:.1f}, what the probe adds {probed[name]:.1f}, the rule {group[name]:.1f}"
        )
        print(f"  rate x {alone[name] / rule:.2f} (signatures and rule), x {alone[name] / whole:.2f} (all)")


class _Clock:
    """Wall and processor seconds of what runs inside it."""

    def __init__(self) -> None:
        self.seconds = self.cpu = 0.0

    def __enter__(self) -> None:
        self._began = time.perf_counter(), time.process_time()

    def __exit__(self, *error: object) -> None:
        self.seconds += time.perf_counter() - self._began[0]
        self.cpu += time.process_time() - self._began[1]

    @property
    def taken(self) -> dict[str, Any]:
        return {"seconds": self.seconds, "cpu": self.cpu}


def _texts(folder: Path, count: int) -> Iterator[list[str]]:
    stream = sentences(folder / "corpus", count)
    while part := list(islice(stream, _PART)):
        yield part


def _alone(folder: Path, count: int) -> dict[str, Any]:
    """Signatures as the library makes them out of texts, and nothing else."""
    from rensa import RMinHash

    clock = _Clock()
    for part in _texts(folder, count):
        with clock:
            for text in part:
                made = RMinHash(shingles.PERMUTATIONS, 1)
                made.update(
                    [text[i : i + shingles.SHINGLE] for i in range(max(1, len(text) - shingles.SHINGLE + 1))]
                )
                made.digest()
    return clock.taken


def _probed(folder: Path, count: int) -> dict[str, Any]:
    """What the probe does for each text: normalized, hashed, signed and sketched."""
    clock, number = _Clock(), 0
    with pq.ParquetWriter(folder / f"{count}.parquet", _SAMPLE, compression="lz4") as sink:
        for part in _texts(folder, count):
            with clock:
                found = [shingles.signature(text) for text in part]
            keys = [str(number + place) for place in range(len(part))]
            ids = [sample_id("near", "s", key) for key in keys]
            columns = [ids, keys, [len(text) for text in part], *map(list, zip(*found, strict=True))]
            sink.write_table(pa.table(columns, schema=_SAMPLE))
            number += len(part)
    return clock.taken


def _grouped(folder: Path, count: int) -> dict[str, Any]:
    """The rule, from signatures to a verdict for each text."""
    file, clock, grouped = pq.ParquetFile(folder / f"{count}.parquet", pre_buffer=False), _Clock(), 0

    def read(columns: list[str], parts: int = 1 << 30) -> pa.RecordBatchReader:
        schema = pa.schema([_SAMPLE.field(name) for name in columns])
        batches = (
            batch.select(columns) for batch in islice(file.iter_batches(_PART, columns=columns), parts)
        )
        return pa.RecordBatchReader.from_batches(schema, batches)

    # Imports, which stand outside of the library's time as well.
    NearDuplicateText().prepare(lambda columns: read(columns, 1))
    with clock:
        rule = NearDuplicateText()
        rule.prepare(read)
        for batch in read(["sample_id"]):
            verdict = rule.judge(pa.Table.from_batches([batch]))
            assert verdict.evidence is not None
            grouped += len(verdict.evidence.group) - verdict.evidence.group.null_count
    return {**clock.taken, "grouped": grouped}


STEPS: dict[str, Callable[[Path, int], dict[str, Any]]] = {
    "alone": _alone,
    "probed": _probed,
    "grouped": _grouped,
}


def _accuracy(folder: Path, originals: int = 2_000, copies: int = 4) -> dict[str, Any]:
    """Sentences and copies with characters and words changed: pairs found against all pairs that are as near."""
    dice = random.Random(1)
    corpus = list(islice(sentences(folder / "corpus", 50_000), 0, 50_000, 50_000 // originals))
    texts = corpus + [_edited(text, dice) for text in corpus for _ in range(copies)]
    rule = NearDuplicateText()
    near = _near(texts, rule.min_similarity)
    found = _found(rule, texts)
    return {
        "texts": len(texts),
        "pairs": len(near),
        "precision": len(found & near) / len(found),
        "recall": len(found & near) / len(near),
    }


def _edited(text: str, dice: random.Random) -> str:
    """One to four edits: a word lost, doubled or exchanged, or a letter mistyped."""
    words = text.split()
    for _ in range(dice.randint(1, 4)):
        place = dice.randrange(len(words))
        kind = dice.randrange(4)
        if kind == 0 and len(words) > 1:
            del words[place]
        elif kind == 1:
            words.insert(place, words[place])
        elif kind == 2:
            words[place] = dice.choice(words)[::-1]
        else:
            letter = dice.randrange(len(words[place]))
            words[place] = words[place][:letter] + dice.choice("abcdefgh") + words[place][letter + 1 :]
    return " ".join(words)


def _near(texts: list[str], similarity: float) -> set[tuple[int, int]]:
    """All pairs of at least that Jaccard similarity of their shingles, by multiplying the sets as a sparse matrix."""
    from scipy.sparse import csr_array

    bodies = [" ".join(text.casefold().split()) for text in texts]
    sets = [
        {body[i : i + shingles.SHINGLE] for i in range(max(1, len(body) - shingles.SHINGLE + 1))}
        for body in bodies
    ]
    names = {shingle: number for number, shingle in enumerate(sorted(set().union(*sets)))}
    rows = np.repeat(np.arange(len(sets)), [len(each) for each in sets])
    columns = np.fromiter((names[shingle] for each in sets for shingle in each), np.int64)
    matrix = csr_array((np.ones(len(rows), np.int32), (rows, columns)), shape=(len(sets), len(names)))
    shared = (matrix @ matrix.T).tocoo()
    sizes = np.array([len(each) for each in sets])
    jaccard = shared.data / (sizes[shared.row] + sizes[shared.col] - shared.data)
    chosen = (shared.row < shared.col) & (jaccard >= similarity)
    return set(zip(shared.row[chosen].tolist(), shared.col[chosen].tolist(), strict=True))


def _found(rule: NearDuplicateText, texts: list[str]) -> set[tuple[int, int]]:
    """The pairs that a rule holds for near, by the texts' places."""
    signed = [shingles.signature(text) for text in texts]
    table = pa.table({"minhash": [each[0] for each in signed], "shingles": [each[1] for each in signed]})
    pairs = rule.matches(numbered(lambda columns: table.select(columns).to_reader()))
    return {pair for each in pairs for pair in zip(each["a"].to_pylist(), each["b"].to_pylist(), strict=True)}


if __name__ == "__main__":
    main()
