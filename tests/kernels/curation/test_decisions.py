from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pytest

from mm_embed_kernels.contracts import CURATED_SAMPLES
from mm_embed_kernels.curation.decisions import curate, profile_digest
from mm_embed_kernels.curation.splits import split_of
from mm_embed_kernels.rules import Rule, Verdict, rule_set
from tests.kernels.sample_rows import sample, table

SHARES = {"train": 0.8, "validation": 0.1, "test": 0.1}


def curated(
    rows: pa.Table, settings: dict[str, Any] | None = None, modality: str = "text", batch: int = 2
) -> dict[str, dict[str, Any]]:
    """Curated rows by key; checked against the contract."""
    user = [name for name in rows.column_names if name.startswith("user__")]

    def read(columns: list[str] | None) -> pa.RecordBatchReader:
        chosen = rows if columns is None else rows.select(columns)
        return pa.RecordBatchReader.from_batches(chosen.schema, chosen.to_batches(max_chunksize=batch))

    contract = CURATED_SAMPLES.extend([rows.schema.field(name) for name in user])
    tables = [
        contract.cast(item) for item in curate(read, rule_set(modality, settings or {}), "birds", SHARES)
    ]
    for item in tables:
        assert contract.violations(item) == {}
    return {row["key"]: row for row in pa.concat_tables(tables).to_pylist()}


def decision(row: dict[str, Any], rule: str) -> dict[str, Any]:
    (found,) = [item for item in row["rules"] if item["rule"] == rule]
    return found


ROWS = table(
    "text",
    sample("text", "good"),
    sample("text", "empty", characters=0, words=0, language=None, language_confidence=None),
    sample("text", "short", words=2),
    sample("text", "twin-a", content_hash="7" * 64),
    sample("text", "twin-b", content_hash="7" * 64),
)


def test_all_rules_are_recorded_for_all_samples() -> None:
    names = [rule.name for rule in rule_set("text", {})]
    for row in curated(ROWS).values():
        assert [item["rule"] for item in row["rules"]] == names
        assert row["passed"] == [item["rule"] for item in row["rules"] if item["passed"]]
        assert row["quality_score"] == pytest.approx(len(row["passed"]) / len(names))
        assert all(
            item["version"] and item["threshold"] is not None and item["action"] in ("drop", "flag")
            for item in row["rules"]
        )
        assert all((item["reason"] is None) == item["passed"] for item in row["rules"])


def test_flag_keeps_and_drop_drops() -> None:
    flagged = curated(ROWS, {"empty": {"action": "flag"}})
    assert {key: row["kept"] for key, row in flagged.items()} == {
        "good": True,
        "empty": True,
        "short": True,
        "twin-a": True,
        "twin-b": False,
    }
    assert decision(flagged["short"], "too_short") == {
        "rule": "too_short", "version": "1", "passed": False, "action": "flag", "value": "2", "threshold": "min_words=3",
        "reason": "has too few words: 2 (min_words=3)",
    }  # fmt: skip
    assert (flagged["short"]["rule"], flagged["short"]["reason"]) == (None, None)
    dropped = curated(ROWS, {"too_short": {"action": "drop"}})
    assert {key for key, row in dropped.items() if not row["kept"]} == {"empty", "short", "twin-b"}
    assert (dropped["short"]["rule"], dropped["short"]["reason"]) == (
        "too_short",
        "has too few words: 2 (min_words=3)",
    )


def test_off_leaves_no_record() -> None:
    rows = curated(ROWS, {"empty": {"action": "off"}, "exact_duplicate": {"action": "off"}})
    assert rows["empty"]["kept"]
    assert rows["twin-b"]["kept"]
    assert {item["rule"] for item in rows["empty"]["rules"]}.isdisjoint({"empty", "exact_duplicate"})


def test_the_first_rule_that_drops_is_named_and_the_others_recorded() -> None:
    row = curated(ROWS, {"too_short": {"action": "drop"}})["empty"]
    assert row["rule"] == "empty"
    assert not decision(row, "too_short")["passed"]


def test_duplicates_across_batches() -> None:
    for size in (1, 2, 5):
        rows = curated(ROWS, batch=size)
        assert rows["twin-b"]["duplicate_group"] == rows["twin-a"]["duplicate_group"] is not None
        assert [proof["of"] for proof in rows["twin-b"]["duplicates"]] == [rows["twin-a"]["sample_id"]]
        assert rows["twin-a"]["duplicates"] == []
        assert rows["good"]["duplicate_group"] is None


def test_batches_do_not_change_decisions() -> None:
    assert curated(ROWS, batch=1) == curated(ROWS, batch=5)


def test_split_follows_the_group_else_the_entity() -> None:
    rows = [
        sample(
            "text",
            f"k{i}",
            group="walk-1" if i < 20 else None,
            entity_id="e" * 32 if i >= 40 else f"{i:032x}",
        )
        for i in range(60)
    ]
    found = curated(table("text", *rows), batch=7)
    assert {row["split"] for key, row in found.items() if int(key[1:]) < 20} == {
        split_of("birds", "walk-1", SHARES)
    }
    assert {row["split"] for key, row in found.items() if int(key[1:]) >= 40} == {
        split_of("birds", "e" * 32, SHARES)
    }
    assert found["k25"]["split_group"] == f"{25:032x}"
    assert found["k25"]["split"] == split_of("birds", f"{25:032x}", SHARES)
    assert len({row["split"] for row in found.values()}) > 1


def test_columns_of_the_user_travel_and_signals_stay_behind() -> None:
    rows = ROWS.append_column("user__stars", pa.array([1, 2, 3, 4, None]))
    found = curated(rows)
    assert {key: row["user__stars"] for key, row in found.items()} == dict(
        zip(ROWS["key"].to_pylist(), [1, 2, 3, 4, None], strict=True)
    )
    assert "letter_share" not in found["good"]


def test_nothing_in_nothing_out() -> None:
    assert (
        list(curate(lambda columns: ROWS.slice(0, 0).to_reader(), rule_set("text", {}), "birds", SHARES))
        == []
    )


@dataclass
class Unmeasured(Rule):
    """Never measured anything."""

    name = "unmeasured"
    columns = ("key",)

    def judge(self, batch: pa.Table) -> Verdict:
        return Verdict(pa.nulls(batch.num_rows, pa.bool_()), pa.nulls(batch.num_rows), "was measured")


def test_null_counts_as_passed() -> None:
    (found,) = curate(lambda columns: ROWS.to_reader(), [Unmeasured(action="drop")], "birds", SHARES)
    assert found["kept"].to_pylist() == [True] * 5
    assert found["rules"][0].as_py()[0]["value"] is None


def test_profile_digest_changes_with_whatever_changes_a_decision() -> None:
    base = profile_digest(rule_set("text", {}), SHARES)
    assert base == profile_digest(rule_set("text", {}), dict(SHARES))
    others = [
        profile_digest(rule_set("text", {"too_short": {"min_words": 4}}), SHARES),
        profile_digest(rule_set("text", {"too_short": {"action": "drop"}}), SHARES),
        profile_digest(rule_set("text", {"too_short": {"action": "off"}}), SHARES),
        profile_digest(rule_set("image", {}), SHARES),
        profile_digest(rule_set("text", {}), {"train": 0.9, "validation": 0.0, "test": 0.1}),
    ]
    assert len({base, *others}) == 6


def test_profile_digest_knows_the_order_of_the_splits() -> None:
    """The order decides which hashes fall into which split."""
    swapped = {"test": 0.1, "validation": 0.1, "train": 0.8}
    assert any(split_of("birds", f"g{i}", swapped) != split_of("birds", f"g{i}", SHARES) for i in range(10))
    assert profile_digest([], swapped) != profile_digest([], SHARES)
