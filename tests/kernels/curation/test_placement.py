"""Splits by groups: what is alike stands in one split, what a parent has placed stays, and newcomers between two are dropped."""

from __future__ import annotations

import hashlib
from typing import Any

import pyarrow as pa
import pytest

from mm_embed_kernels.contracts import CURATED_SAMPLES
from mm_embed_kernels.curation.decisions import curate
from mm_embed_kernels.curation.splits import EQUAL_GROUPS, PARENT_SAMPLES, PARENT_SPLITS, split_of
from mm_embed_kernels.rules import rule_set
from tests.kernels.rules.test_duplicates import LONG, TEXTS, name, texts

SHARES = {"train": 0.5, "test": 0.5}


def curated(
    rows: pa.Table,
    placed: dict[str, str] | None = None,
    known: str = "",
    settings: dict[str, Any] | None = None,
    equal: dict[str, str] | None = None,
) -> dict[str, dict[str, Any]]:
    """Decisions by key; `placed` are split groups by name, `known` the keys of samples that the parent has."""

    def read(columns: list[str] | None) -> pa.RecordBatchReader:
        chosen = rows if columns is None else rows.select(columns)
        return pa.RecordBatchReader.from_batches(chosen.schema, chosen.to_batches(max_chunksize=2))

    groups = pa.table([list(placed or {}), list((placed or {}).values())], schema=PARENT_SPLITS)
    samples = pa.table([[name(key) for key in known]], schema=PARENT_SAMPLES)
    units = None
    if equal is not None:
        units = pa.table([[name(key) for key in equal], list(equal.values())], schema=EQUAL_GROUPS)
    rules = rule_set("text", settings or {})
    tables = list(curate(read, rules, "birds", SHARES, groups, samples, units))
    assert all(CURATED_SAMPLES.violations(CURATED_SAMPLES.cast(item)) == {} for item in tables)
    return {row["key"]: row for row in pa.concat_tables(tables).to_pylist()}


def elsewhere(key: str) -> str:
    """The split in which a sample's own hash does not put it."""
    return "test" if split_of("birds", name(key), SHARES) == "train" else "train"


def test_a_group_goes_where_its_content_goes() -> None:
    """The content hashes of a, b and c in the table are 61, 62 and 63 with zeros behind."""
    group = "content-" + hashlib.sha256(f"{61:0<64}".encode()).hexdigest()[:32]
    rows = curated(texts(TEXTS))
    assert {rows[key]["split_group"] for key in "abc"} == {group}
    assert {rows[key]["split"] for key in "abc"} == {split_of("birds", group, SHARES)}
    assert rows["d"]["split_group"] == name("d")
    assert all(row["kept"] for row in rows.values())


def test_a_linked_group_goes_where_its_first_member_goes() -> None:
    """The captions of its first photo are placed by the photo's id, in another cell."""
    rows = curated(texts(TEXTS), equal={})
    assert {rows[key]["split_group"] for key in "abc"} == {name("a")}
    assert {rows[key]["split"] for key in "abc"} == {split_of("birds", name("a"), SHARES)}


def test_equal_samples_that_others_link_go_where_their_content_goes() -> None:
    """In the cell of the photos they are compared, in that of the captions nothing is known but their unit."""
    rows = curated(texts(TEXTS), equal={"b": "content-b", "c": "content-b", "d": "content-d"})
    groups = {key: row["split_group"] for key, row in rows.items()}
    assert groups == {**dict.fromkeys("abc", "content-b"), "d": "content-d", "other": name("other")}
    assert {rows[key]["split"] for key in "abc"} == {split_of("birds", "content-b", SHARES)}
    placed = {name("b"): elsewhere("b"), name("d"): elsewhere("d")}
    rows = curated(texts(TEXTS), placed, equal={"b": "content-b", "c": "content-b", "d": "content-d"})
    assert {rows[key]["split"] for key in "abc"} == {elsewhere("b")}
    assert rows["d"]["split"] == elsewhere("d")


def test_a_declared_group_comes_along_as_a_whole() -> None:
    """Its other members are like nothing, and would leak the group into another split."""
    plain = texts(TEXTS)
    group = pa.array([None if key not in ("b", "d", "other") else "walk" for key in plain["key"].to_pylist()])
    rows = curated(plain.set_column(plain.column_names.index("group"), "group", group))
    assert {row["split_group"] for row in rows.values()} == {"walk"}
    assert rows["other"]["duplicate_group"] is None


def test_copies_and_near_copies_are_one_group() -> None:
    rows = texts({"a": LONG, "b": LONG, "c": LONG + "!"})
    content = pa.array(["1" * 64 if key in ("a", "b") else "2" * 64 for key in rows["key"].to_pylist()])
    found = curated(rows.set_column(rows.column_names.index("content_hash"), "content_hash", content))
    assert {row["duplicate_group"] for row in found.values()} == {f"near-{name('a')}"}
    assert [item["kind"] for item in found["b"]["duplicates"]] == ["exact", "near_text", "near_text"]
    assert [row["kept"] for row in found.values()] == [True, False, True]


def test_newcomers_follow_what_is_placed() -> None:
    split = elsewhere("c")
    rows = curated(texts(TEXTS), {name("c"): split}, known="c")
    assert {rows[key]["split"] for key in "abc"} == {split}
    assert {rows[key]["split_group"] for key in "abc"} == {name("c")}
    assert all(row["kept"] for row in rows.values())


def test_what_is_placed_and_alone_stays() -> None:
    split = elsewhere("other")
    row = curated(texts(TEXTS), {name("other"): split}, known="o")["other"]
    assert (row["split"], row["split_group"]) == (split, name("other"))


def test_a_newcomer_between_two_splits_is_dropped() -> None:
    rows = curated(texts(TEXTS), {name("a"): "train", name("c"): "test"}, known="ac")
    assert (rows["b"]["kept"], rows["b"]["rule"]) == (False, "split_conflict")
    assert rows["b"]["reason"] == "is alike to samples in several splits: test, train"
    assert rows["b"]["rules"][-1] == {
        "rule": "split_conflict", "version": "1", "passed": False, "action": "drop", "value": "test, train", "threshold": "one split",
        "reason": rows["b"]["reason"],
    }  # fmt: skip
    assert {key: rows[key]["split"] for key in "ac"} == {"a": "train", "c": "test"}
    assert all(rows[key]["kept"] for key in ("a", "c", "d", "other"))
    straddling = {}
    for row in rows.values():
        if row["kept"] and row["duplicate_group"]:
            straddling.setdefault(row["duplicate_group"], set()).add(row["split"])
    assert all(len(splits) == 1 for splits in straddling.values())


def test_a_newcomer_in_a_placed_group_is_a_newcomer() -> None:
    """Its declared group stands in one split already, what it is alike to in another."""
    plain = texts(TEXTS)
    group = pa.array(["walk" if key in ("b", "other") else None for key in plain["key"].to_pylist()])
    rows = curated(
        plain.set_column(plain.column_names.index("group"), "group", group),
        {"walk": "test", name("a"): "train", name("c"): "train"},
        known="ac",
    )
    assert (rows["b"]["kept"], rows["b"]["rule"]) == (False, "split_conflict")
    assert {rows[key]["split"] for key in "ac"} == {"train"}


@pytest.mark.parametrize("action", ["drop", "off"])
def test_without_near_duplicates_nothing_is_in_conflict(action: str) -> None:
    rows = curated(
        texts(TEXTS),
        {name("a"): "train", name("c"): "test"},
        "ac",
        {"near_duplicate_text": {"action": action}},
    )
    assert rows["b"]["rule"] == {"drop": "near_duplicate_text", "off": None}[action]


def test_what_another_rule_drops_is_not_what_is_kept_of_a_group() -> None:
    plain = texts(TEXTS)
    words = pa.array([1 if key == "a" else 20 for key in plain["key"].to_pylist()])
    rows = plain.set_column(plain.column_names.index("words"), "words", words)
    found = curated(
        rows, settings={"too_short": {"action": "drop"}, "near_duplicate_text": {"action": "drop"}}
    )
    assert {key: row["rule"] for key, row in found.items() if not row["kept"]} == {
        "a": "too_short",
        "c": "near_duplicate_text",
    }
    assert found["b"]["duplicate_group"] == f"near-{name('b')}"
    assert found["a"]["duplicate_group"] is None
