"""The benchmark of many versions does each of its works."""

from __future__ import annotations

from pathlib import Path

from benchmarks.many_versions import EACH, measure, write_store


def test_each_work_is_done_and_asks_no_more_for_more_versions(tmp_path: Path) -> None:
    """Requests of what reads the registry do not grow with the versions."""
    asked = []
    for versions in (2 * EACH, 4 * EACH):
        root = tmp_path / str(versions)
        write_store(root, versions)
        asked.append({work: requests for work, (_, requests) in measure(str(root)).items()})
    fixed = [work for work in asked[0] if work.endswith("again") and not work.startswith(("gc", "sensor"))]
    assert len(fixed) == 8
    assert [asked[0][work] for work in fixed] == [asked[1][work] for work in fixed]
