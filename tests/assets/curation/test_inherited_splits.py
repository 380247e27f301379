"""Splits across versions on Arrow tables: a renamed sample moves no other one."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from mm_assets.curation.inherited_splits import _KNOWN, _MEMBERS, _PARENT, _PLACED
from mm_embed_kernels import sql
from mm_embed_kernels.curation.decisions import curate
from mm_embed_kernels.curation.splits import PARENT_SAMPLES, PARENT_SPLITS, split_of
from mm_embed_kernels.rules import rule_set
from mm_embed_kernels.similarity import shingles
from tests.kernels.sample_rows import sample, table

SHARES = {"train": 0.5, "test": 0.5}
TEXTS = [f"{word} stands on the hill above the old harbour, and nobody else does" for word in "abc"]
# Key -> (which text, declared group); equal texts are equal samples.
Samples = dict[str, tuple[int, str | None]]
samples = st.dictionaries(
    st.sampled_from("bcdefghkmnpq"),
    st.tuples(st.integers(0, 2), st.sampled_from([None, None, None, "walk"])),
    min_size=2,
    max_size=8,
)


def rows_of(samples: Samples) -> pa.Table:
    rows = []
    for key, (number, group) in samples.items():
        signature, sketch = shingles.signature(TEXTS[number])
        changed = {"minhash": signature, "shingles": sketch, "characters": 60, "group": group}
        rows.append(sample("text", key, content_hash=f"{number}" * 64, **changed))
    return table("text", *rows)


def curated(samples: Samples, parent: pa.Table | None = None, action: str = "flag") -> pa.Table:
    """Curate a version as the asset does; `parent` has the rows of `_PARENT`."""
    rows = rows_of(samples)

    def read(columns: list[str] | None) -> pa.RecordBatchReader:
        return (rows if columns is None else rows.select(columns)).to_reader()

    placed, known = PARENT_SPLITS.empty_table(), PARENT_SAMPLES.empty_table()
    if parent is not None:
        members = sql.fetch(_MEMBERS, samples=rows)
        placed = sql.fetch(_PLACED, members=members, parent=parent).cast(PARENT_SPLITS)
        known = sql.fetch(_KNOWN, samples=rows, parent=parent).cast(PARENT_SAMPLES)
    settings = {name: {"action": action} for name in ("exact_duplicate", "near_duplicate_text")}
    rules = rule_set("text", settings)
    return pa.concat_tables(curate(read, rules, "birds", SHARES, placed, known))


def splits(decisions: pa.Table) -> dict[str, Any]:
    return dict(zip(decisions["key"].to_pylist(), decisions["split"].to_pylist(), strict=True))


def renamed(samples: Samples, key: str, name: str) -> Samples:
    return {name if each == key else each: value for each, value in samples.items()}


@settings(max_examples=12, deadline=None)
@given(samples, st.data(), st.sampled_from(["a", "z"]), st.sampled_from(["flag", "off"]))
def test_a_renamed_sample_moves_no_other_one_of_a_parent(
    samples: Samples, data: st.DataObject, name: str, action: str
) -> None:
    """Also where the parent, which did not compare its samples, has equal ones in several splits."""
    key = data.draw(st.sampled_from(sorted(samples)))
    before = curated(samples, action=action)
    after = splits(curated(renamed(samples, key, name), before.select(_PARENT.names).cast(_PARENT)))
    assert {each: after[each] for each in samples if each != key} == {
        each: split for each, split in splits(before).items() if each != key
    }
    if action == "flag":
        assert after[name] == splits(before)[key]


@settings(max_examples=8, deadline=None)
@given(samples, st.data(), st.sampled_from(["a", "z"]))
def test_without_a_parent_a_renamed_one_of_several_equal_samples_moves_none(
    samples: Samples, data: st.DataObject, name: str
) -> None:
    """Equal samples are in one split in any case; of two or more, each may be renamed, and follows the others."""
    key = data.draw(st.sampled_from(sorted(samples)))
    before, after = splits(curated(samples)), splits(curated(renamed(samples, key, name)))
    for number in {number for number, _ in samples.values()}:
        equal = [each for each, value in renamed(samples, key, name).items() if value[0] == number]
        assert len({after[each] for each in equal}) == 1
    equal = [each for each in samples if samples[each][0] == samples[key][0]]
    if len(equal) > 1:
        assert after == {name if each == key else each: split for each, split in before.items()}


def test_the_first_and_the_last_of_three_equal_samples_are_renamed() -> None:
    """Whatever their names, the split is that of their content; the digest is by sha256sum."""
    for names in ("bcd", "acd", "zcd", "bca", "bcz", "xyz"):
        assert set(splits(curated(dict.fromkeys(names, (1, None)))).values()) == {
            split_of("birds", "content-3138bb9bc78df27c473ecfd1410f7bd4", SHARES)
        }
