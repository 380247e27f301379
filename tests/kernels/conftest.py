"""Property tests are the same in every run and keep no database of examples; a run ends with what hostile input did to it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from tests.kernels.fuzz_tally import TALLY

settings.register_profile(
    "mm", database=None, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("mm")


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    if TALLY in config.stash:
        terminalreporter.write_line(config.stash[TALLY].line())
