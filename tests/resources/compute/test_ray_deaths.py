"""Ray actors that really die: by default Ray would try their rows for ever."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from mm_resources.compute import ray_pipeline, ray_session
from mm_resources.compute.cache import ComputeCache
from mm_resources.compute.ray_session import RaySession
from mm_resources.compute.runner import KernelRunner
from mm_resources.storage.store import Store
from tests.resources.compute.test_cache import latest
from tests.resources.ray_numbers import Children, Numbers


@pytest.fixture
def session(ray_cluster: RaySession) -> RaySession:
    return ray_cluster


def run(session: RaySession, folder: Path, *odd: str) -> dict[str, dict[str, Any]]:
    compute = KernelRunner(ComputeCache(Store(str(folder))), session, mode="ray")
    keys = [f"{i:03}" for i in range(40)]
    for place, name in enumerate(odd):
        keys[place * 9 + 3] += f"-{name}"
    report = compute.run(Numbers(), pa.table({"key": keys}))
    found = latest(compute, Numbers())
    assert set(found) == set(keys)
    assert report.computed == 40
    assert all(row["twice"] == 2 * int(key) for key, row in found.items() if row["status"] == "ok")
    return {key: row for key, row in found.items() if row["status"] == "failed"}


def test_a_dead_actors_batch_is_finished_row_by_row(session: RaySession, tmp_path: Path) -> None:
    failed = run(session, tmp_path, "early", "late", "early")
    assert {key: row["error_class"] for key, row in failed.items()} == {
        "003-early": "model_crash", "012-late": "model_crash", "021-early": "model_crash",
    }  # fmt: skip
    assert "exit code 3" in failed["003-early"]["message"]
    assert "SIGSEGV" in failed["012-late"]["message"]


@pytest.mark.slow
def test_an_actor_that_hangs_costs_its_row(
    session: RaySession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_pipeline, "NO_PROGRESS_SECONDS", 15)
    monkeypatch.setattr(ray_session, "BATCH_SECONDS", 5.0)
    failed = run(session, tmp_path, "hang")
    assert {key: row["error_class"] for key, row in failed.items()} == {"003-hang": "timeout"}


@pytest.mark.slow
def test_a_mistake_in_the_code_still_ends_the_run(session: RaySession, tmp_path: Path) -> None:
    with pytest.raises(Exception, match="021-bug"):
        run(session, tmp_path, "early", "late", "bug")


def test_an_actor_has_one_sandboxed_child(session: RaySession, tmp_path: Path) -> None:
    for mode, children in (("ray", 1), ("inline", 4)):
        compute = KernelRunner(ComputeCache(Store(str(tmp_path / mode))), session, mode=mode)
        compute.run(Children(), pa.table({"key": ["1", "2"]}))
        assert {row["twice"] for row in latest(compute, Children()).values()} == {children}
