"""How tests are shared among workers: whole files where tests share what they publish, else one by one.

Neither of xdist's modes does both: ``loadfile`` keeps every file on one worker, so that the longest one ends the
run alone, and ``loadgroup`` of xdist 3.8 writes its groups into an attribute that pytest 9.2 no longer reads.
"""

from __future__ import annotations

from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

# Folders whose files publish once for all of their tests.
_WHOLE_FILES = ("tests/assets/", "tests/benchmarks/", "tests/stored/")
# Tests whose commands are forks of one server, which their worker starts once.
_FORKED = "tests/faults/"
# Tests of one local Ray, which their worker starts once; the tests with a parameter ``ray`` belong to them.
_ON_RAY = (
    "tests/assets/retrieval/test_training_set.py",
    "tests/assets/whole_path/test_text_and_image.py::test_ray_and_inline_agree",
    "tests/resources/compute/test_ray_deaths.py",
)


def group(nodeid: str) -> str:
    """Return the name of the tests that one worker takes together with this one."""
    file = nodeid.partition("::")[0]
    if nodeid.endswith("[ray]") or nodeid.startswith(_ON_RAY):
        return "ray"
    if file.startswith(_FORKED):
        return "faults"
    return file if file.startswith(_WHOLE_FILES) else nodeid


class Schedule(LoadScopeScheduling):
    """Hands out groups of tests, those with most tests first."""

    def _split_scope(self, nodeid: str) -> str:
        return group(nodeid)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Schedule:
    """Replace xdist's schedule, whatever its ``--dist`` says."""
    return Schedule(config, log)
