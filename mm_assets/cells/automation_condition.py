"""The automation condition of all assets but the first."""

from __future__ import annotations

import dagster as dg

_Condition = dg.AutomationCondition


def flows_on() -> dg.AutomationCondition:
    """Materialize when upstream holds something new, has passed its gates and is at rest.

    Stricter than ``eager()``: a run that left upstream's data version as it was starts nothing, and a failed
    gate stops the flow until it is mended.
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
