"""Report the tally of hostile input at the end of a run."""

from __future__ import annotations

from typing import Any

import pytest

from tests.kernels.fuzz_tally import TALLY


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    if TALLY in config.stash:
        terminalreporter.write_line(config.stash[TALLY].line())
