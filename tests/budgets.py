"""Shares of a whole run's time that the files of tests may take, reported at its end.

A ratio within one run, since machines differ and are shared. A file above its budget is where a later change
made the suite slow; it is reported, and fails nothing.
"""

from __future__ import annotations

from collections import Counter

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


def over_budget(seconds: Counter[str]) -> list[str]:
    """Return a line for each file that takes a larger share than its budget, the largest first."""
    total = seconds.total()
    return [
        f"{file}: {spent:.0f} s are {spent / total:.0%} of the run, budget {BUDGETS.get(file, BUDGET):.0%}"
        for file, spent in seconds.most_common()
        if spent > BUDGETS.get(file, BUDGET) * total
    ]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Report the files above their budget after a run of the whole suite."""
    seconds: Counter[str] = Counter()
    tests = 0
    for reports in terminalreporter.stats.values():
        for report in reports:
            if isinstance(report, pytest.TestReport):
                seconds[report.nodeid.partition("::")[0]] += report.duration
                tests += report.when == "call"
    if tests < _WHOLE_RUN:
        return
    terminalreporter.section("files above their budget of time")
    for line in over_budget(seconds) or ["none"]:
        terminalreporter.write_line(line)
