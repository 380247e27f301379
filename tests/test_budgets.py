from __future__ import annotations

from collections import Counter

from tests.budgets import BUDGETS, over_budget
from tests.processes import ROOT


def test_a_file_above_its_share_is_reported() -> None:
    seconds = Counter({f"tests/test_{i}.py": 1.0 for i in range(95)} | {"tests/test_slow.py": 5.1})
    assert over_budget(seconds) == ["tests/test_slow.py: 5 s are 5% of the run, budget 5%"]
    assert over_budget(Counter({f"tests/test_{i}.py": 1.0 for i in range(100)})) == []


def test_files_with_a_budget_of_their_own_exist() -> None:
    assert [file for file in BUDGETS if not (ROOT / file).is_file()] == []
