"""Rules that read vectors: spoiled labels are found, near vectors are grouped, and no vector is no verdict."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from mm_embed_kernels.errors import UserError
from mm_embed_kernels.rules import rule_set
from mm_embed_kernels.rules.label_suspect import LabelSuspect
from mm_embed_kernels.rules.near_duplicate_vector import NearDuplicateVector
from mm_embed_kernels.selection.label_doubt import doubt_labels

SCHEMA = pa.schema([(name, pa.string()) for name in ("sample_id", "key", "label", "content_hash")])


def named(number: int, size: int) -> str:
    return hashlib.sha256(str(number).encode()).hexdigest()[:size]


def cell(
    labels: list[str | None], step: int = 100
) -> tuple[pa.Table, Callable[[list[str]], pa.RecordBatchReader]]:
    rows = pa.table(
        {
            "sample_id": [named(i, 32) for i in range(len(labels))],
            "key": [f"{i:06d}" for i in range(len(labels))],
            "label": pa.array(labels, pa.string()),
            "content_hash": [named(i, 64) for i in range(len(labels))],
        }
    )
    return rows, lambda columns: pa.RecordBatchReader.from_batches(
        pa.schema([SCHEMA.field(name) for name in columns]),
        rows.select(columns).to_batches(max_chunksize=step),
    )


def reader(vectors: np.ndarray[Any, Any], numbers: list[int]) -> Callable[[], Iterator[tuple[Any, Any]]]:
    hashes = np.array([named(i, 64) for i in numbers], "S64")

    def read() -> Iterator[tuple[Any, Any]]:
        for start in range(0, len(hashes), 64):
            yield hashes[start : start + 64], vectors[start : start + 64]

    return read


def classes(
    size: int = 900, kinds: int = 6, noise: float = 0.25
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    generator = np.random.default_rng(3)
    owner = generator.integers(0, kinds, size)
    vectors = np.eye(24)[owner] + noise * generator.standard_normal((size, 24))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32), owner


def failing(rule: Any, rows: pa.Table) -> set[int]:
    verdict = rule.judge(rows)
    return {i for i, passed in enumerate(verdict.passed.to_pylist()) if passed is False}


def test_labels_that_were_spoiled_are_found_more_precisely_than_by_the_likeliest_class() -> None:
    vectors, owner = classes(noise=0.35)
    generator = np.random.default_rng(5)
    spoiled = set(generator.choice(len(owner), 90, replace=False).tolist())
    labels = [
        f"kind{(each + 1 + i % 4) % 6 if i in spoiled else each}" for i, each in enumerate(owner.tolist())
    ]
    rows, read = cell(list(labels))
    rule = LabelSuspect(action="flag")
    rule.set_vectors(reader(vectors, list(range(len(owner)))))
    rule.prepare(read)
    found = failing(rule, rows)
    precision, recall = len(found & spoiled) / len(found), len(found & spoiled) / len(spoiled)
    assert precision >= 0.75
    assert recall >= 0.6
    # The baseline takes each label for wrong that the probe would not have given.
    given = np.unique(labels, return_inverse=True)[1]
    doubt = doubt_labels(lambda rows: vectors[rows], given)
    other = set(np.flatnonzero(doubt.likeliest != given).tolist())
    assert precision > len(other & spoiled) / len(other) + 0.2
    # The same in another order and in other batches.
    again = LabelSuspect(action="flag")
    again.set_vectors(reader(vectors[::-1], list(range(len(owner)))[::-1]))
    again.prepare(cell(list(labels), step=7)[1])
    assert failing(again, rows) == found
    strict = LabelSuspect(action="flag", max_probability=0.01)
    strict.set_vectors(reader(vectors, list(range(len(owner)))))
    strict.prepare(read)
    assert failing(strict, rows) < found


def test_what_has_no_vector_no_label_or_few_of_its_kind_is_not_judged() -> None:
    vectors, owner = classes(120, 2)
    labels: list[str | None] = [f"kind{each}" for each in owner.tolist()]
    labels[0], labels[1] = None, "rare"
    rows, read = cell([*labels, "kind0"])
    rule = LabelSuspect(action="flag")
    rule.set_vectors(reader(vectors, list(range(120))))
    rule.prepare(read)
    passed = rule.judge(rows).passed.to_pylist()
    assert [passed[i] for i in (0, 1, 120)] == [None, None, None]
    assert passed[2] is True


def test_without_a_parent_nothing_is_measured() -> None:
    rows, read = cell(["a", "b"] * 10)
    for rule in (LabelSuspect(action="flag"), NearDuplicateVector(action="flag")):
        rule.prepare(read)
        assert failing(rule, rows) == set()


def test_near_vectors_are_grouped_and_others_are_not() -> None:
    generator = np.random.default_rng(2)
    vectors = generator.standard_normal((300, 64)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    for copy, original in ((10, 3), (200, 3), (201, 77)):
        moved = vectors[original] + 0.02 * generator.standard_normal(64)
        vectors[copy] = moved / np.linalg.norm(moved)
    rows, read = cell(["x"] * 300)
    rule = NearDuplicateVector(action="drop", min_similarity=0.95)
    rule.set_vectors(reader(vectors, list(range(300))))
    rule.prepare(read)
    cosine = vectors @ vectors.T
    expected = {max(pair) for pair in zip(*np.nonzero(np.triu(cosine, 1) >= 0.95), strict=True)}
    assert failing(rule, rows) == expected == {10, 200, 201}
    verdict = rule.judge(rows)
    assert verdict.evidence is not None
    groups = verdict.evidence.group.to_pylist()
    assert groups[3] == groups[10] == groups[200] != groups[77] == groups[201]
    assert {item["kind"] for item in verdict.evidence.duplicates.to_pylist()[10]} == {"near_vector"}


def test_segments_of_one_content_are_compared_by_their_mean() -> None:
    vectors = np.eye(4, dtype=np.float32)[[0, 1, 0, 1, 2]]
    rows, read = cell(["x"] * 3)
    rule = NearDuplicateVector(action="drop")
    rule.set_vectors(reader(vectors, [0, 0, 1, 1, 2]))
    rule.prepare(read)
    assert failing(rule, rows) == {1}


def test_settings() -> None:
    assert "label_suspect" not in {rule.name for rule in rule_set("text", {})}
    assert "near_duplicate_vector" in {
        rule.name for rule in rule_set("image", {"near_duplicate_vector": {"action": "flag"}})
    }
    with pytest.raises(UserError, match="is not from"):
        rule_set("text", {"near_duplicate_vector": {"action": "flag", "min_similarity": 0.1}})
