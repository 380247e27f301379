"""SIGKILL at commit boundaries: the plain re-run of the same command publishes what an undisturbed run does."""

from __future__ import annotations

import itertools
import signal
from collections import Counter
from typing import Any

from tests.faults.conftest import TEXT
from tests.faults.published import Published, cached, published, stored
from tests.faults.victim import Fault, Home

BACKFILL = ("backfill", "tiny@v1")
# A stage that has nothing to do writes into the ledger all the same; counted, the chain below would not get on.
ADVANCING = r"(?!\w+ ledger)"


def checkpoints(journal: list[dict[str, Any]], side: str) -> Counter[str]:
    """Rows of all checkpoints of each cache that were begun (``before``) or committed (``after``)."""
    rows: Counter[str] = Counter()
    for line in journal:
        if line["side"] == side and line["label"].startswith("append cache/"):
            rows[line["label"]] += line["rows"]
    return rows


def assert_undisturbed(home: Home, undisturbed: Home, expected: Published) -> None:
    published(home.store, TEXT).assert_like(expected)
    assert cached(home.store) == cached(undisturbed.store)
    assert stored(home.store) == stored(undisturbed.store)


def test_killed_again_and_again(home: Home, undisturbed: Home, expected: Published) -> None:
    """Each run is killed a few boundaries after the place where the last one was, until one comes through."""
    pace = itertools.cycle([(6, "before"), (5, "after"), (7, "before"), (4, "after")])
    kills = 0
    for at, side in pace:
        run = home.mm(*BACKFILL, fault=Fault(at, side, ADVANCING))
        if run.code != -signal.SIGKILL:
            break
        kills += 1
        assert kills < 60, home.passed()
    assert run.code == 0, run.text
    assert_undisturbed(home, undisturbed, expected)
    labels = {line["label"] for line in home.passed()}
    assert labels >= {line["label"] for line in undisturbed.passed()}
    print(kills, len(labels))
