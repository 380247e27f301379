"""The automation condition of all assets except the first."""

from __future__ import annotations

import dagster as dg

_Condition = dg.AutomationCondition


def materialize_when_upstream_changes() -> dg.AutomationCondition:
    """Materialize when upstream has new data, its blocking checks passed and it is not running.

    Stricter than ``eager()``: an unchanged data version starts nothing; a failed gate stops downstream runs
    until it passes.
    """
    upstream_is_new = _Condition.any_deps_match(
        _Condition.data_version_changed() | _Condition.will_be_requested()
    )
    return (
        (_Condition.missing().newly_true() | upstream_is_new).since_last_handled()
        & ~_Condition.any_deps_missing()
        & ~_Condition.any_deps_in_progress()
        & ~_Condition.in_progress()
        & _Condition.all_deps_blocking_checks_passed()
    )
