from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mm_embed_kernels.curation.splits import split_of
from mm_embed_kernels.identity import content_hash

SHARES = {"train": 0.8, "validation": 0.1, "test": 0.1}
GROUPS = [f"group-{i}" for i in range(20_000)]


@pytest.mark.parametrize(
    "shares", [SHARES, {"a": 0.5, "b": 0.25, "c": 0.25}, {"all": 1.0}, {"train": 0.0, "test": 1.0}]
)
def test_shares_are_approached(shares: dict[str, float]) -> None:
    counts = Counter(split_of("birds", group, shares) for group in GROUPS)
    assert set(counts) <= set(shares)
    for name, share in shares.items():
        # Five standard deviations of a binomial.
        assert counts[name] / len(GROUPS) == pytest.approx(
            share, abs=5 * (share * (1 - share) / len(GROUPS)) ** 0.5
        )


def test_order_and_company_do_not_matter() -> None:
    there = {group: split_of("birds", group, SHARES) for group in GROUPS}
    back = random.Random(1).sample(GROUPS, 5_000)
    assert {group: split_of("birds", group, SHARES) for group in back} == {
        group: there[group] for group in back
    }


def test_datasets_are_split_independently() -> None:
    both = Counter((split_of("birds", group, SHARES), split_of("bees", group, SHARES)) for group in GROUPS)
    assert both["test", "test"] / len(GROUPS) == pytest.approx(0.01, abs=0.005)
    assert both["train", "test"] / len(GROUPS) == pytest.approx(0.08, abs=0.012)


def test_splits_are_pinned() -> None:
    """A changed hash would leak the test split of every published dataset into training."""
    letters = "".join(split_of("birds", group, SHARES)[1] for group in GROUPS)  # tRain, vAlidation, tEst
    assert letters.startswith("rrrrrarearrrrrrrarrrrerr")
    assert (
        content_hash(letters.encode()) == "9c067733b2421fffdbd54e22bc4038e131b4c0307151599385b73b34a6ef9e9a"
    )


def test_growing_a_share_moves_nothing_else() -> None:
    """A group of the first split stays there when the first share grows."""
    for group in GROUPS[:2_000]:
        if split_of("birds", group, {"train": 0.6, "test": 0.4}) == "train":
            assert split_of("birds", group, {"train": 0.7, "test": 0.3}) == "train"


@given(st.text(), st.text())
def test_any_names_have_a_split(dataset: str, group: str) -> None:
    assert split_of(dataset, group, SHARES) in SHARES


@given(st.text())
def test_rounding_never_reaches_an_empty_split(group: str) -> None:
    """Shares that sum to a little less than 1 leave their rest to the last split that has a share."""
    assert split_of("birds", group, {"train": 0.0, "rest": 1e-12, "none": 0.0}) == "rest"
