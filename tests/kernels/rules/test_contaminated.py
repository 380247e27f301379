"""What another dataset shows, too: by its bytes, nearly, and through others."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from mm_embed_kernels.errors import UserError
from mm_embed_kernels.rules import rules
from mm_embed_kernels.rules.contaminated import Contaminated
from mm_embed_kernels.sql import CellReader
from tests.kernels.rules.test_duplicates import LONG, TEXTS, name, texts

NONE: dict[str, Any] = {"passed": True, "duplicates": []}


def reader(rows: pa.Table, batch: int) -> CellReader:
    return lambda columns: pa.RecordBatchReader.from_batches(
        rows.select(columns).schema, rows.select(columns).to_batches(batch)
    )


def found(own: pa.Table, others: dict[str, pa.Table], near: bool = True, batch: int = 3) -> dict[str, Any]:
    """What the rule says of each sample, by key."""
    rule = Contaminated(action="drop", against=", ".join(others))
    rule.compare_with(
        {key: reader(rows, batch) for key, rows in others.items()},
        rules()["near_duplicate_text"]() if near else None,
    )  # type: ignore[arg-type]
    rule.prepare(reader(own, batch))
    verdict = rule.judge(own)
    assert verdict.evidence is not None
    assert verdict.evidence.group.null_count == own.num_rows, (
        "no group: what is elsewhere is no sample of this cell"
    )
    columns = (own["key"], verdict.passed, verdict.evidence.duplicates)
    return {
        key: {"passed": passed, "duplicates": duplicates}
        for key, passed, duplicates in zip(*(column.to_pylist() for column in columns), strict=True)
    }


@pytest.mark.parametrize("batch", [1, 100])
def test_bytes_and_near_copies_of_a_benchmark_are_found(batch: int) -> None:
    own = texts({"a": TEXTS["a"], "other": TEXTS["other"], "d": TEXTS["d"]})
    bench = texts({"q1": LONG, "q2": TEXTS["other"] + " of May"})
    same = pa.concat_tables([bench, texts({"q3": "x"}, content_hash=own["content_hash"][2].as_py())])
    said = found(own, {"bench@v1": same}, batch=batch)
    (near,) = said["a"]["duplicates"]
    assert (near["of"], near["kind"], near["span"]) == (name("q1"), "near_text in bench@v1", None)
    assert 0.8 <= near["score"] < 1
    assert said["d"] == {
        "passed": False,
        "duplicates": [{"of": name("q3"), "kind": "exact in bench@v1", "score": 1.0, "span": None}],
    }
    assert not said["other"]["passed"]
    assert found(own, {"bench@v1": same}, near=False)["a"] == NONE, (
        "without a rule for near ones, only bytes are compared"
    )


def test_what_the_others_share_among_them_is_not_this_cells_fault() -> None:
    own = texts({"other": TEXTS["other"]})
    assert (
        found(own, {"one@v1": texts({"a": TEXTS["a"]}), "two@v1": texts({"b": TEXTS["b"]})})["other"] == NONE
    )


def test_each_of_many_copies_is_found() -> None:
    """A bucket compares a member with few others; the rest is found through them."""
    own = texts({f"k{n:02d}": LONG for n in range(40)})
    said = found(own, {"bench@v1": texts({"q": TEXTS["a"]}), "two@v1": texts({"z": TEXTS["other"]})})
    assert not any(item["passed"] for item in said.values())
    kinds = {item["duplicates"][0]["kind"] for item in said.values()}
    assert kinds == {"near_text in bench@v1", "near_text in bench@v1, through others"}
    assert {item["duplicates"][0]["of"] for item in said.values()} == {name("q")}


def test_no_samples_are_no_error() -> None:
    assert found(texts(TEXTS), {"bench@v1": texts(TEXTS).slice(0, 0)}) == dict.fromkeys(TEXTS, NONE)
    assert found(texts(TEXTS).slice(0, 0), {"bench@v1": texts(TEXTS)}) == {}


def test_settings_that_do_nothing_are_refused() -> None:
    with pytest.raises(UserError, match="`action` is off; set it to drop or flag"):
        Contaminated(against="bench@v1")
    with pytest.raises(UserError, match="must name a dataset version"):
        Contaminated(action="drop", against=" , ")
    assert Contaminated(action="flag", against="a@v1, b@v2").datasets == ["a@v1", "b@v2"]
