from __future__ import annotations

import subprocess
import sys
from collections import Counter

import pytest

from tests import budgets
from tests.budgets import BUDGETS, by_budget
from tests.processes import ROOT


def test_a_file_above_its_share_is_marked() -> None:
    even = Counter({f"tests/test_{i}.py": 1.0 for i in range(95)})
    first, *others = by_budget(even | Counter({"tests/test_slow.py": 5.1}))
    assert first == "     5 s   5% of 5%  tests/test_slow.py  ABOVE ITS BUDGET"
    assert len(others) == 14
    assert not any("ABOVE" in line for line in others)
    assert not any("ABOVE" in line for line in by_budget(even))


def test_the_time_of_children_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock of the run itself stays where it is."""
    monkeypatch.setattr(budgets, "_spent", budgets._cpu_seconds())
    busy = "import time\nwhile time.process_time() < 0.5: pass"
    subprocess.run([sys.executable, "-c", busy], check=True)
    report = pytest.TestReport("a", ("a", 0, "a"), {}, "passed", None, "call")
    hook = budgets.pytest_runtest_makereport()
    next(hook)
    with pytest.raises(StopIteration):
        hook.send(report)
    assert dict(report.user_properties)["cpu seconds"] > 0.25


def test_files_with_a_budget_of_their_own_exist() -> None:
    assert [file for file in BUDGETS if not (ROOT / file).is_file()] == []
