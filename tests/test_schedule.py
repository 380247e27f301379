from __future__ import annotations

from tests.processes import ROOT
from tests.schedule import _ON_RAY, group


def test_tests_that_share_something_are_taken_together() -> None:
    assert group("tests/assets/cells/test_gates.py::test_a") == "tests/assets/cells/test_gates.py"
    assert group("tests/assets/whole_path/test_video.py::test_a[ray]") == "ray"
    assert group("tests/resources/compute/test_ray_deaths.py::test_a") == "ray"
    assert (
        group("tests/faults/test_kill.py::test_a[b]")
        == group("tests/faults/test_disk.py::test_a")
        == "faults"
    )
    assert group("tests/kernels/test_sql.py::test_a[b]") == "tests/kernels/test_sql.py::test_a[b]"


def test_the_tests_on_ray_exist() -> None:
    for name in _ON_RAY:
        file, _, function = name.partition("::")
        assert function in (ROOT / file).read_text("utf-8")
