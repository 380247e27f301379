"""Pick samples of a large published table by their vectors, and train a probe on them, beside a random pick.

Run: .venv/bin/python -m benchmarks.picks --rows 1000000 --count 10000

The vectors are made: clusters of very different sizes, several to a label. A probe (logistic regression) is
trained on each pick and tested on all other rows.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks import ratios
from benchmarks.ratios import Row
from benchmarks.search import publish_table
from mm_resources.catalog import Catalog
from mm_resources.registry.pins import Pin
from mm_resources.retrieval.picks import PickRequest, PickSummary, parse_by, pick
from mm_resources.retrieval.sample_vectors import SampleVectors
from mm_resources.storage.process import configure_process
from mm_resources.storage.store import Store

_DIMENSION, _BLOCK = 384, 8_192
_LABELS, _MODES, _LATENT = 40, 4, 48
# Share of a cluster's spread in the distance of clusters: labels overlap a little.
_SPREAD, _NOISE = 0.55, 0.05
# The n-th largest cluster has n ** -_SKEW of the rows of the largest.
_SKEW = 1.3
_METHODS = ("random", "diversity", "diversity,label", "coverage,label", "typicality,label")


@dataclass(frozen=True)
class Outcome:
    """What a pick cost, and what a probe that is trained on it knows.

    Attributes:
        cpu, wall: seconds of the pick.
        before, peak: resident memory of the process before the pick, and its peak, MiB.
        accuracy: share of the rows that were not picked whose label the probe says.
        balanced: mean of that share over the labels.
        weighted: `accuracy` where each pick weighs in training what it stands for.
    """

    summary: PickSummary
    cpu: float
    wall: float
    before: float
    peak: float
    accuracy: float
    balanced: float
    weighted: float


def main() -> None:
    """Print cost, spread and the accuracy of a probe for each way to pick."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--by", nargs="*", default=_METHODS)
    arguments = parser.parse_args()
    configure_process()
    with _published_table(arguments.rows) as (folder, pin):
        print(f"{arguments.count:,} of {arguments.rows:,} x {_DIMENSION}, {pin.primary.index}")
        for by in arguments.by:
            found = _measure(folder, pin, by, arguments.count)
            print(
                f"{by}: {found.summary.picked:,} picked, {found.cpu:.0f} CPU s, {found.wall:.0f} s, "
                f"{found.peak:,.0f} MiB ({found.before:,.0f} before), mean distance "
                f"{found.summary.distance:.4f}, largest {found.summary.largest_distance:.4f}; "
                f"probe {found.accuracy:.4f}, mean of labels {found.balanced:.4f}, "
                f"weighted {found.weighted:.4f}",
                flush=True,
            )


def rows(share: float) -> Iterator[Row]:
    """Yield errors of a probe, cost and memory of picks beside those of a random pick."""
    configure_process()
    total = max(20_000, round(1_000_000 * share))
    count = total // 100
    name = f"pick {count:,} of {total:,}"
    with _published_table(total) as (folder, pin):
        drawn = _measure(folder, pin, "random", count)
        for by in ("diversity", "diversity,label"):
            found = _measure(folder, pin, by, count)
            errors = {
                "weighted by what each stands for": (found.weighted, drawn.accuracy, 1.0),
                "mean of labels": (found.balanced, drawn.balanced, None),
            }
            for what, (ours, theirs, goal) in errors.items():
                error = (1 - ours) / (1 - theirs)
                yield ratios.row(f"{name}, {by}, error of a probe, {what}", [error], goal=goal, sense="<=")
            yield ratios.row(
                f"{name}, {by}, largest distance to a pick",
                [found.summary.largest_distance / found.summary.random_largest_distance],
                goal=1,
                sense="<=",
            )
            yield ratios.row(f"{name}, {by}, CPU time", [found.cpu / drawn.cpu], goal=None, sense="<=")
            grown = (found.peak - found.before) * 2**20 / (total * _DIMENSION * 4)
            yield ratios.row(f"{name}, {by}, memory over that of the vectors", [grown], goal=1, sense="<=")


@contextmanager
def _published_table(rows: int) -> Iterator[tuple[str, Pin]]:
    with tempfile.TemporaryDirectory(prefix="mm-picks-") as folder:
        yield folder, publish_table(Catalog(Store(folder)), _blocks(rows), _DIMENSION)


def _blocks(rows: int) -> Iterator[pa.Table]:
    """Yield feature rows of clusters of very different sizes; each label has a large one and small ones."""
    dice = np.random.default_rng(0)
    clusters = _LABELS * _MODES
    centers = dice.standard_normal((clusters, _LATENT), np.float32)
    shown = dice.standard_normal((_LATENT, _DIMENSION), np.float32) / np.sqrt(_LATENT)
    sizes = np.arange(1, clusters + 1.0) ** -_SKEW
    for start in range(0, rows, _BLOCK):
        count = min(_BLOCK, rows - start)
        owner = dice.choice(clusters, count, p=sizes / sizes.sum())
        latent = centers[owner] + _SPREAD * dice.standard_normal((count, _LATENT), np.float32)
        vectors = latent @ shown + _NOISE * dice.standard_normal((count, _DIMENSION), np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        ids = pa.array([dice.bytes(16).hex() for _ in range(count)])
        constants = {
            "dataset": "bench", "version": "v1", "modality": "text", "content_hash": "0" * 64,
            "source_uri": "/x", "key": "x", "span": "full", "embedder": "random", "fingerprint": "0" * 64,
            "weights_hash": "0" * 64, "preprocessing": "{}", "split": "train", "quality_score": 1.0,
            "partial": False, "mime": "text/plain", "run_id": "r", "created_at": datetime.now(UTC),
        }  # fmt: skip
        yield pa.table(
            {
                **dict.fromkeys(("feature_id", "segment_id", "sample_id", "entity_id"), ids),
                **{name: [value] * count for name, value in constants.items()},
                "label": [f"label {each % _LABELS}" for each in owner],
                "vector": pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), _DIMENSION),
            }
        )


def _measure(folder: str, pin: Pin, by: str, count: int) -> Outcome:
    """Pick in a process of its own, then train and test a probe in this one."""
    spawn = multiprocessing.get_context("spawn")
    receiver, sender = spawn.Pipe(duplex=False)
    child = spawn.Process(target=_pick, args=(sender, folder, pin, by, count))
    child.start()
    sender.close()
    summary, *cost = receiver.recv()
    child.join()
    catalog = Catalog(Store(folder))
    samples, picks = SampleVectors(catalog, pin), catalog.picks.read(pin.cell, summary.name)
    picks = picks.sort_by("sample_id")
    weights = picks["stands_for"].to_numpy()
    ids = np.asarray(picks["sample_id"].to_pylist(), "S32")
    accuracy, balanced = _probe(samples, ids, np.ones(len(ids)))
    return Outcome(summary, *cost, accuracy, balanced, _probe(samples, ids, weights / weights.mean())[0])


def _pick(answer: Any, folder: str, pin: Pin, by: str, count: int) -> None:
    configure_process()
    catalog, (method, per_label) = Catalog(Store(folder)), parse_by(by)
    before, resident, began = resource.getrusage(resource.RUSAGE_SELF), _peak(), time.perf_counter()
    name = f"{by.replace(',', '-')}-{count}"
    summary = pick(catalog, pin, name, PickRequest(count, method, per_label))
    after = resource.getrusage(resource.RUSAGE_SELF)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    answer.send((summary, cpu, time.perf_counter() - began, resident, _peak()))


def _peak() -> float:
    """Return the peak resident memory of this process, MiB; `getrusage` counts that of its parent, too."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def _probe(samples: SampleVectors, picked: Any, weights: Any) -> tuple[float, float]:
    """Return the share of right answers on the samples that were not picked, and its mean over labels.

    Args:
        picked: ids, sorted as those of `samples` are, bytes [n].
        weights: of the picks in training, float64 [n].
    """
    from sklearn.linear_model import LogisticRegression

    mask = np.isin(samples.ids, picked)
    names, given = np.unique(samples.labels.astype(str), return_inverse=True)
    parts = [(numbers[own], vectors[own]) for numbers, vectors in samples.blocks() for own in [mask[numbers]]]
    numbers = np.concatenate([each for each, _ in parts])
    weight = weights[np.searchsorted(picked, samples.ids[numbers])]
    probe = LogisticRegression(C=10.0, max_iter=300)
    probe.fit(np.concatenate([each for _, each in parts]), given[numbers], weight)
    right, every = np.zeros(len(names)), np.zeros(len(names))
    for numbers, vectors in samples.blocks():
        rest = ~mask[numbers]
        truth = given[numbers[rest]]
        right += np.bincount(truth, probe.predict(vectors[rest]) == truth, len(names))
        every += np.bincount(truth, minlength=len(names))
    return float(right.sum() / every.sum()), float((right[every > 0] / every[every > 0]).mean())


if __name__ == "__main__":
    main()
