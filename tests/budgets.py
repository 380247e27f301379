"""Shares of a whole run's CPU time that the files of tests may take, reported at its end.

A ratio within one run, since machines differ; CPU and not wall time, since they are shared. A file above its budget
is where a later change made the suite slow; it is reported, and fails nothing. Children count when they have ended.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Generator

import pytest

# Share of the summed time of all tests.
BUDGET = 0.05
# What starts clusters, servers or processes for nearly all of its tests.
BUDGETS = {
    "tests/assets/automation/test_sensors.py": 0.10,
    "tests/assets/cli/test_cli.py": 0.08,
    "tests/assets/operations/test_redrive.py": 0.08,
    "tests/faults/test_kill.py": 0.10,
    "tests/resources/compute/test_ray_nodes.py": 0.08,
}
# A run of fewer tests is a part of the suite.
_WHOLE_RUN = 2_000
# Files that are listed: those with most time, and those above their budget.
_LISTED = 15
_CPU = "cpu seconds"

_spent = 0.0


def _cpu_seconds() -> float:
    """Return the CPU time of this process and of its children that have ended."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def pytest_collection_finish() -> None:
    """Count from the first test on."""
    global _spent
    _spent = _cpu_seconds()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Note in the report of each phase of a test what it took."""
    global _spent
    report, before = (yield), _spent
    _spent = _cpu_seconds()
    report.user_properties.append((_CPU, _spent - before))
    return report


def by_budget(seconds: Counter[str]) -> list[str]:
    """Return a line for each file that is listed, the largest share first."""
    total, lines = seconds.total(), []
    for place, (file, spent) in enumerate(seconds.most_common()):
        budget = BUDGETS.get(file, BUDGET)
        above = spent > budget * total
        if place < _LISTED or above:
            told = f"{spent:6.0f} s {spent / total:4.0%} of {budget:.0%}  {file}"
            lines.append(f"{told}  ABOVE ITS BUDGET" if above else told)
    return lines


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Report the files with most CPU time after a run of the whole suite."""
    seconds: Counter[str] = Counter()
    tests = 0
    for reports in terminalreporter.stats.values():
        for report in reports:
            if isinstance(report, pytest.TestReport):
                seconds[report.nodeid.partition("::")[0]] += dict(report.user_properties).get(_CPU, 0.0)
                tests += report.when == "call"
    if tests < _WHOLE_RUN:
        return
    terminalreporter.section(f"CPU time of files, of {seconds.total():.0f} s")
    for line in by_budget(seconds):
        terminalreporter.write_line(line)
