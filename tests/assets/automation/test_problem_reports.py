"""States of sensors' problems."""

from __future__ import annotations

from mm_assets.automation.problem_reports import problem_state


def test_a_number_makes_no_new_state() -> None:
    slow = problem_state(["birds@v1: no answer after 5.12s", "bees@v1: damaged"])
    assert problem_state(["bees@v1: damaged", "birds@v1: no answer after 6.02s"]) == slow
    assert problem_state(["birds@v1: no answer after 5.12s", "bees@v1: denied"]) != slow
    assert problem_state([]) == ""
