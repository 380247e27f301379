"""The storage of `mm` reads and writes the files of Dagster's own."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml

from mm_assets import dagster_storage
from mm_assets.operations.dagster_home import open_instance
from mm_resources.settings import Settings
from tests.assets.conftest import environment


@dg.asset
def counted() -> dg.MaterializeResult[None]:
    return dg.MaterializeResult(metadata={"rows": 3})


def settings(root: Path) -> Settings:
    return Settings(str(root / "store"), root / "home", root / "datasets", "bundled")


def is_ours(instance: dg.DagsterInstance) -> bool:
    return type(instance.event_log_storage).__module__ == dagster_storage.__name__


def runs(instance: dg.DagsterInstance) -> list[tuple[str, str, int]]:
    """Run ids, statuses and numbers of events."""
    return [(run.run_id, run.status.value, len(instance.all_logs(run.run_id))) for run in instance.get_runs()]


def test_daemon_and_webserver_read_what_it_wrote_and_it_reads_theirs(tmp_path: Path) -> None:
    with environment():
        ours = open_instance(settings(tmp_path))
        assert is_ours(ours)
        with dg.DagsterInstance.get() as theirs:  # as `dagster dev` opens the home
            assert not is_ours(theirs)
            for instance in (ours, theirs):
                assert dg.materialize([counted], instance=instance).success
            assert runs(ours) == runs(theirs)
            assert len(runs(ours)) == 2
            latest = [
                instance.get_latest_materialization_event(counted.key).run_id for instance in (ours, theirs)
            ]
            assert latest[0] == latest[1] == runs(ours)[0][0]
            theirs.add_dynamic_partitions("versions", ["a"])
            assert ours.has_dynamic_partition("versions", "a")
            ours.delete_run(runs(ours)[0][0])
            assert runs(ours) == runs(theirs)
        ours.dispose()


def test_many_threads_and_runs_at_once(tmp_path: Path) -> None:
    """More runs than there are engines, read again and again by threads that take turns."""
    with environment():
        instance = open_instance(settings(tmp_path))
        for _ in range(10):
            dg.materialize([counted], instance=instance)
        before = runs(instance)
        with ThreadPoolExecutor(8) as pool:
            assert list(pool.map(lambda _: runs(instance), range(24))) == [before] * 24
        instance.dispose()


@pytest.mark.parametrize("name", ["storage", "run_storage"])
def test_a_configured_storage_stays(tmp_path: Path, name: str) -> None:
    home = settings(tmp_path).dagster_home
    home.mkdir(parents=True)
    chosen: dict[str, Any] = {"sqlite": {"base_dir": str(tmp_path / "elsewhere")}}
    if name == "run_storage":
        chosen = {
            "module": "dagster._core.storage.runs",
            "class": "SqliteRunStorage",
            "config": {"base_dir": str(tmp_path / "elsewhere")},
        }
    (home / "dagster.yaml").write_text(yaml.safe_dump({name: chosen}))
    with environment():
        instance = open_instance(settings(tmp_path))
        assert not is_ours(instance)
        assert (tmp_path / "elsewhere").exists()
        instance.dispose()


def test_a_home_that_is_as_it_should_be_is_opened_without_its_migrations(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with environment():
        first = open_instance(settings(tmp_path))
        first.add_dynamic_partitions("versions", ["a"])
        first.dispose()
        with monkeypatch.context() as patched:
            patched.setattr(
                "alembic.script.ScriptDirectory.from_config", lambda _: pytest.fail("migrations were read")
            )
            again = open_instance(settings(tmp_path))
        assert is_ours(again)
        assert dg.materialize([counted], instance=again).success
        assert again.has_dynamic_partition("versions", "a")
        again.delete_dynamic_partition("versions", "a")
        assert not again.has_dynamic_partition("versions", "a")
        with again.event_log_storage.index_connection() as connection:
            found = [
                connection.exec_driver_sql(f"PRAGMA {name}").scalar()
                for name in ("journal_mode", "synchronous")
            ]
        assert found == ["wal", 1]
        again.dispose()


def test_a_database_without_its_revision_is_completed(tmp_path: Path) -> None:
    """A process that was killed while it made the files has left them without."""
    import sqlite3

    with environment():
        open_instance(settings(tmp_path)).dispose()
        for name in ("history/runs.db", "history/runs/index.db", "schedules/schedules.db"):
            with sqlite3.connect(settings(tmp_path).dagster_home / name) as connection:
                connection.execute("DELETE FROM alembic_version")
        again = open_instance(settings(tmp_path))
        assert dg.materialize([counted], instance=again).success
        again.dispose()
        for name in ("history/runs.db", "history/runs/index.db", "schedules/schedules.db"):
            with sqlite3.connect(settings(tmp_path).dagster_home / name) as connection:
                assert connection.execute("SELECT count(*) FROM alembic_version").fetchone() == (1,)
