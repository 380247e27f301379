"""Dagster's private API is as `mm_assets/dagster_private.py` expects it; the first test to fail at an upgrade."""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from mm_assets import dagster_private, dagster_storage
from tests.processes import ROOT

USED = [
    ("dagster._core.execution.backfill", "PartitionBackfill"),
    ("dagster._core.storage.tags", "PARTITION_NAME_TAG"),
    ("dagster._core.storage.tags", "MULTIDIMENSIONAL_PARTITION_PREFIX"),
    ("dagster._core.utils", "make_new_backfill_id"),
    ("dagster._daemon.controller", "get_daemon_statuses"),
    ("dagster._core.instance.ref", "InstanceRef"),
    ("dagster._core.storage.event_log.sqlite.sqlite_event_log", "SqliteEventLogStorage"),
    ("dagster._core.storage.runs.sqlite.sqlite_run_storage", "SqliteRunStorage"),
    ("dagster._core.storage.sqlite_storage", "DagsterSqliteStorage"),
]
ADVICE = (
    f"mm_assets/dagster_private.py was written for Dagster {dagster_private.VERSION}, "
    f"installed is {dg.__version__}: adapt it, and its VERSION"
)


def private(module: str, name: str) -> Any:
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        pytest.fail(f"{module}.{name} is gone ({error}); {ADVICE}")


def require_parameters(function: Any, names: set[str]) -> None:
    there = inspect.signature(function).parameters
    assert names <= there.keys(), f"{function.__qualname__} takes no {names - there.keys()}; {ADVICE}"
    needed = {name for name, item in there.items() if item.default is inspect.Parameter.empty}
    assert needed <= names, f"{function.__qualname__} needs {needed - names}; {ADVICE}"


@pytest.mark.parametrize(("module", "name"), USED)
def test_the_name_exists(module: str, name: str) -> None:
    assert private(module, name) is not None


def test_the_storage_has_the_methods_that_are_replaced() -> None:
    events = private("dagster._core.storage.event_log.sqlite.sqlite_event_log", "SqliteEventLogStorage")
    require_parameters(events._connect, {"self", "shard"})
    require_parameters(events.has_table, {"self", "table_name"})
    runs = private("dagster._core.storage.runs.sqlite.sqlite_run_storage", "SqliteRunStorage")
    require_parameters(runs.connect, {"self"})
    require_parameters(runs.from_local, {"base_dir", "inst_data"})


def test_calls_take_the_same_arguments() -> None:
    backfill = private("dagster._core.execution.backfill", "PartitionBackfill")
    require_parameters(
        backfill.from_asset_partitions,
        {
            "backfill_id", "asset_graph", "partition_names", "asset_selection", "backfill_timestamp", "tags",
            "dynamic_partitions_store", "all_partitions", "title", "description", "run_config",
        },
    )  # fmt: skip
    require_parameters(
        private("dagster._daemon.controller", "get_daemon_statuses"),
        {"instance", "daemon_types", "heartbeat_tolerance_seconds"},
    )
    require_parameters(private("dagster._core.utils", "make_new_backfill_id"), set())


def test_tags_are_the_same() -> None:
    tags = "dagster._core.storage.tags"
    assert private(tags, "PARTITION_NAME_TAG") == dagster_private.PARTITION_TAG, ADVICE
    assert private(tags, "MULTIDIMENSIONAL_PARTITION_PREFIX") == dagster_private.DIMENSION_TAG_PREFIX, ADVICE


def test_no_other_module_uses_private_names() -> None:
    own = {Path(dagster_private.__file__), Path(dagster_storage.__file__)}
    files = [path for package in ("mm_assets", "mm_resources") for path in (ROOT / package).rglob("*.py")]
    assert own < set(files)
    assert [str(path) for path in files if path not in own and "dagster._" in path.read_text("utf-8")] == []
