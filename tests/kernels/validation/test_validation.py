from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from mm_embed_kernels.errors import UserError, error_fingerprint
from mm_embed_kernels.modalities import get
from mm_embed_kernels.spec.thresholds import ColumnRule
from mm_embed_kernels.validation.bounds import (
    REJECTED,
    bounded_columns,
    reject_before_download,
    rejection_reasons,
    validation_bounds,
)
from mm_embed_kernels.validation.suggestions import Suggestion, round_limit, suggest

IMAGE = get("image")
TABLE = pa.table(
    {
        "key": ["a/x.JPG", "b.gif", "none", "c.d/e", None],
        "size": pa.array([0, 10, 20, None, 30], pa.int64()),
        "mime": pa.array(["image/jpeg", "image/gif", None, "image/png", "image/png"]),
        "brightness": [0.5, float("nan"), 200.0, 3.0, None],
    }
)


def rejected(**rules: Any) -> list[int]:
    """Rows that the rules reject."""
    bounds = validation_bounds(IMAGE, {name: ColumnRule(**rule) for name, rule in rules.items()})
    return [row for row, reason in enumerate(rejection_reasons(TABLE, bounds)) if reason]


@pytest.mark.parametrize(
    ("rules", "rows"),
    [
        ({"size": {"min": 10}}, [0]),
        ({"size": {"max": 10}}, [2, 4]),
        ({"size": {"min": 1, "max": 20}}, [0, 4]),
        ({"size": {"one_of": [10, 20]}}, [0, 4]),
        ({"mime": {"one_of": ["image/png"]}}, [0, 1]),
        ({"mime": {"none_of": ["image/gif"]}}, [1]),
        ({"extension": {"one_of": ["JPG"]}}, [1, 2, 3, 4]),
        ({"extension": {"none_of": [""]}}, [2, 3, 4]),
        ({"brightness": {"max": 199.5}}, [2]),
        ({"width": {"min": 32}}, []),  # not known yet
        ({}, []),
    ],
)
def test_what_is_outside_a_bound_is_rejected_and_what_was_not_measured_passes(
    rules: dict[str, Any], rows: list[int]
) -> None:
    assert rejected(**rules) == rows


def test_a_reason_names_rule_value_and_threshold_and_one_rule_is_one_cause() -> None:
    bounds = validation_bounds(IMAGE, {"size": ColumnRule(min=30)})
    reasons = [reason for reason in rejection_reasons(TABLE, bounds) if reason]
    assert reasons[1] == "size is 10; allowed is min: 30 (validation.image.size)"
    assert len({error_fingerprint("raw_assets", REJECTED, reason) for reason in reasons}) == 1


@pytest.mark.parametrize(
    ("rules", "words"),
    [
        ({"colour": {"min": 1}}, "validation.image.colour: no such column; there are: size, extension"),
        ({"mime": {"min": 1}}, "validation.image.mime.min: mime is no number"),
        ({"size": {"one_of": ["big"]}}, "validation.image.size.one_of: 'big' is no int64"),
        ({"mime": {"none_of": [1]}}, "validation.image.mime.none_of: 1 is no string"),
        ({"size": {"one_of": [True]}}, "validation.image.size.one_of: True is no int64"),
    ],
)
def test_a_rule_that_cannot_hold_is_refused_in_one_line(rules: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError) as refused:
        rejected(**rules)
    assert str(refused.value).startswith(words)


def test_every_modality_has_columns_to_judge() -> None:
    for name in ("image", "audio", "video", "text"):
        columns = bounded_columns(get(name))
        assert list(columns)[:4] == ["size", "extension", "source", "label"]
        assert "captured_at" not in columns
        assert "mime" in columns


def test_the_door_refuses_before_anything_is_fetched() -> None:
    listing = TABLE.select(["key", "size"])
    listing = listing.append_column(
        "error_class", pa.array([None, "path_escape", None, None, None], pa.string())
    )
    listing = listing.append_column(
        "message", pa.array([None, "leads outside", None, None, None], pa.string())
    )
    bounds = validation_bounds(IMAGE, {"size": ColumnRule(min=11)})
    found = reject_before_download(listing.to_reader(max_chunksize=2), bounds).read_all()
    assert found.schema == listing.schema
    assert found["error_class"].to_pylist() == [REJECTED, "path_escape", None, None, None], (
        "the source's own refusal stays"
    )
    assert found["message"].to_pylist()[:2] == [
        "size is 0; allowed is min: 11 (validation.image.size)",
        "leads outside",
    ]


@pytest.mark.parametrize(
    ("rejected", "allowed", "whole", "limit"),
    [
        (0, 200_000, True, 1),
        (860, 41_000, True, 900),
        (860, 861, True, 861),
        (999, 1001, True, 1000),
        (5_000_000, 80, True, 4_000_000),
        (0.0, 0.37, False, 0.1),
        (0.31, 0.37, False, 0.32),
        (-60.2, -31.0, False, -60.0),
        (7200.5, 60.0, False, 7000.0),
        (1.0, 1.0000000000000002, False, 1.0000000000000002),
    ],
)
def test_a_limit_is_a_plain_number_between_both_sides(
    rejected: float, allowed: float, whole: bool, limit: float
) -> None:
    found = round_limit(rejected, allowed, whole)
    assert found == limit
    assert rejected < found <= allowed or allowed <= found < rejected


def proposals(**columns: list[Any]) -> list[Suggestion]:
    table = pa.table(columns)
    kinds = [(name, table.schema.field(name).type) for name in table.column_names if name != "cause"]
    return suggest(lambda names: table.select(names).to_reader(max_chunksize=7), kinds, "probe/bad")


def test_a_planted_threshold_is_found_and_what_it_costs_is_counted() -> None:
    # 40 small ones fail, 2 small ones do not, 3 large ones fail for the same cause; another cause is no one's fault here.
    sizes = [*range(100, 140), 120, 121, *range(5000, 5003), *range(1000, 9000, 100), *range(50)]
    causes = [*["probe/bad"] * 40, None, None, *["probe/bad"] * 3, *[None] * 80, *["other"] * 50]
    best = proposals(size=sizes, cause=causes)[0]
    assert best == Suggestion("size", "min", 200, caught=40, wrong=2)
    assert best.gain == 38


def test_a_planted_value_is_found_and_the_cheaper_column_wins_a_tie() -> None:
    count = 30
    bad = ["probe/bad"] * count + [None] * count
    found = proposals(
        size=[5] * 2 * count,
        extension=["webp"] * count + ["jpg"] * count,
        mime=["image/webp"] * count + ["image/jpeg"] * (count - 1) + ["image/webp"],
        loudness=[None] * 2 * count,
        cause=bad,
    )
    assert [(item.column, item.bound, item.limit, item.caught, item.wrong) for item in found] == [
        ("extension", "none_of", ["webp"], count, 0),
        ("mime", "none_of", ["image/webp"], count, 1),
    ]


def test_loud_and_quiet_ends_are_both_looked_at() -> None:
    loud = proposals(
        level=[-1.5, -0.5, -0.2, *[-20.0 - i for i in range(9)]], cause=["probe/bad"] * 3 + [None] * 9
    )
    assert (loud[0].bound, loud[0].limit, loud[0].caught, loud[0].wrong) == ("max", -2.0, 3, 0)


def test_what_nothing_tells_apart_is_not_blamed_on_a_column() -> None:
    assert proposals(size=[1, 1, 1, 1, 1, 1], extension=["a"] * 6, cause=["probe/bad"] * 3 + [None] * 3) == []
