"""Measure near-duplicate texts: rate and memory against signatures alone, precision and recall.

Run: .venv/bin/python -m benchmarks.near_duplicates --counts 100000 1000000

Precision and recall are measured against the exact Jaccard similarity of all pairs.
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
from mm_embed_kernels.sql import number_rows

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
    """Print rate and memory for each number of texts, then precision and recall."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--counts", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument(
        "--folder", type=Path, default=None, help="folder of the corpus; not deleted if given"
    )
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
    """Compare the library's signatures with two sums: they plus the rule, the probe's plus the rule.

    The probe's signatures fold case and white space first and store a sketch for the comparison.
    """
    with tempfile.TemporaryDirectory(prefix="mm-near-") as scratch:
        folder = Path(scratch)
        # A million texts take minutes, and their pairs differ by less than those of a tenth of them.
        for count, pairs in ((100_000, ratios.PAIRS), (1_000_000, 1)):
            texts = max(2_000, round(count * share))
            runs = [_run_steps(folder, texts) for _ in range(pairs)]
            for what, step in (("signatures and rule", "library"), ("with sketches", "probe")):
                shares = (
                    each["library"]["seconds"] / (each[step]["seconds"] + each["rule"]["seconds"])
                    for each in runs
                )
                yield ratios.row(
                    f"near-duplicate text, {texts:,} documents, {what}", shares, goal=0.5, sense=">="
                )
        accuracy = _accuracy(folder, max(200, round(2_000 * share)))
        for name in ("precision", "recall"):
            yield ratios.row(f"near-duplicate text, {name}", [accuracy[name]], goal=0.95, sense=">=")


def _run_steps(folder: Path, count: int) -> dict[str, dict[str, Any]]:
    """Run each step in a process of its own, so that each has its own peak of memory."""
    results = {}
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
        # The setting of `configure_process` in the platform's own processes.
        taken = run(command, {"MALLOC_ARENA_MAX": "2"})
        results[step] = {**json.loads(taken.output.splitlines()[-1]), "peak": round(taken.peak_mib)}
        print(f"{count:,} {step}: {results[step]}", file=sys.stderr)
    return results


def _report(folder: Path, count: int) -> None:
    steps = _run_steps(folder, count)
    library, probe, rule = steps["library"], steps["probe"], steps["rule"]
    print(f"{count:,} texts, {rule['grouped']:,} of them in groups; peak {rule['peak']:,.0f} MiB")
    for name in ("seconds", "cpu"):
        with_rule, whole = library[name] + rule[name], probe[name] + rule[name]
        print(
            f"  {name}: the library's signatures {library[name]:.1f}, the probe's {probe[name]:.1f}, "
            f"the rule {rule[name]:.1f}"
        )
        print(
            f"  rate x {library[name] / with_rule:.2f} (signatures and rule), "
            f"x {library[name] / whole:.2f} (with sketches)"
        )


class _Clock:
    """Context manager that sums the wall and CPU seconds spent inside it."""

    def __init__(self) -> None:
        self.seconds = self.cpu = 0.0

    def __enter__(self) -> None:
        self._began = time.perf_counter(), time.process_time()

    def __exit__(self, *error: object) -> None:
        self.seconds += time.perf_counter() - self._began[0]
        self.cpu += time.process_time() - self._began[1]

    @property
    def times(self) -> dict[str, Any]:
        return {"seconds": self.seconds, "cpu": self.cpu}


def _texts(folder: Path, count: int) -> Iterator[list[str]]:
    stream = sentences(folder / "corpus", count)
    while part := list(islice(stream, _PART)):
        yield part


def _sign_by_library(folder: Path, count: int) -> dict[str, Any]:
    """Compute the library's signatures of the texts, and nothing else."""
    from rensa import RMinHash

    clock = _Clock()
    for part in _texts(folder, count):
        with clock:
            for text in part:
                signature = RMinHash(shingles.PERMUTATIONS, 1)
                signature.update(
                    [text[i : i + shingles.SHINGLE] for i in range(max(1, len(text) - shingles.SHINGLE + 1))]
                )
                signature.digest()
    return clock.times


def _sign_by_probe(folder: Path, count: int) -> dict[str, Any]:
    """Normalize, hash, sign and sketch each text, as the probe does; write the results for the rule."""
    clock, number = _Clock(), 0
    with pq.ParquetWriter(folder / f"{count}.parquet", _SAMPLE, compression="lz4") as sink:
        for part in _texts(folder, count):
            with clock:
                signatures = [shingles.signature(text) for text in part]
            keys = [str(number + place) for place in range(len(part))]
            ids = [sample_id("near", "s", key) for key in keys]
            columns = [ids, keys, [len(text) for text in part], *map(list, zip(*signatures, strict=True))]
            sink.write_table(pa.table(columns, schema=_SAMPLE))
            number += len(part)
    return clock.times


def _apply_rule(folder: Path, count: int) -> dict[str, Any]:
    """Apply the rule, from signatures to a verdict for each text."""
    file, clock, grouped = pq.ParquetFile(folder / f"{count}.parquet", pre_buffer=False), _Clock(), 0

    def read(columns: list[str], parts: int = 1 << 30) -> pa.RecordBatchReader:
        schema = pa.schema([_SAMPLE.field(name) for name in columns])
        batches = (
            batch.select(columns) for batch in islice(file.iter_batches(_PART, columns=columns), parts)
        )
        return pa.RecordBatchReader.from_batches(schema, batches)

    # Warm-up: the library's time excludes imports, too.
    NearDuplicateText().prepare(lambda columns: read(columns, 1))
    with clock:
        rule = NearDuplicateText()
        rule.prepare(read)
        for batch in read(["sample_id"]):
            verdict = rule.judge(pa.Table.from_batches([batch]))
            assert verdict.evidence is not None
            grouped += len(verdict.evidence.group) - verdict.evidence.group.null_count
    return {**clock.times, "grouped": grouped}


STEPS: dict[str, Callable[[Path, int], dict[str, Any]]] = {
    "library": _sign_by_library,
    "probe": _sign_by_probe,
    "rule": _apply_rule,
}


def _accuracy(folder: Path, originals: int = 2_000, copies: int = 4) -> dict[str, Any]:
    """Compare the rule's pairs with the exact pairs, over sentences and edited copies of them."""
    dice = random.Random(1)
    corpus = list(islice(sentences(folder / "corpus", 50_000), 0, 50_000, 50_000 // originals))
    texts = corpus + [_edit(text, dice) for text in corpus for _ in range(copies)]
    rule = NearDuplicateText()
    exact = _exact_pairs(texts, rule.min_similarity)
    matched = _matched_pairs(rule, texts)
    return {
        "texts": len(texts),
        "pairs": len(exact),
        "precision": len(matched & exact) / len(matched),
        "recall": len(matched & exact) / len(exact),
    }


def _edit(text: str, dice: random.Random) -> str:
    """Apply one to four edits: delete, double or reverse a word, or change a letter."""
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


def _exact_pairs(texts: list[str], similarity: float) -> set[tuple[int, int]]:
    """Return all pairs of at least this Jaccard similarity of shingles, by a product of sparse matrices."""
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


def _matched_pairs(rule: NearDuplicateText, texts: list[str]) -> set[tuple[int, int]]:
    """Return the pairs that the rule matches, as positions of the texts."""
    signed = [shingles.signature(text) for text in texts]
    table = pa.table({"minhash": [each[0] for each in signed], "shingles": [each[1] for each in signed]})
    pairs = rule.matches(number_rows(lambda columns: table.select(columns).to_reader()))
    return {pair for each in pairs for pair in zip(each["a"].to_pylist(), each["b"].to_pylist(), strict=True)}


if __name__ == "__main__":
    main()
