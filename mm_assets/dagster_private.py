"""The private API of Dagster that the project uses, here and in `dagster_storage`, of Dagster 1.13.27.

Dagster has no public call that submits a backfill of chosen partitions to the daemon or reports on the
daemon's health, no public name for the tag of a run's partition, and no field for the message of a stored
error without its class. `tests/assets/test_dagster_private.py`
fails where an upgrade has moved or changed one of them.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg

from mm_embed_kernels.errors import sentence_of

if TYPE_CHECKING:
    from dagster._core.execution.backfill import PartitionBackfill
    from dagster._utils.error import SerializableErrorInfo

VERSION = "1.13.27"

# Tags that Dagster sets on every run of a partition: `dagster._core.storage.tags`.
PARTITION_TAG = "dagster/partition"
DIMENSION_TAG_PREFIX = "dagster/partition/"

# Seconds. A daemon reports every 30 seconds.
HEARTBEAT_TOLERANCE = 90


def partitions_backfill(
    definitions: dg.Definitions,
    instance: dg.DagsterInstance,
    assets: Sequence[dg.AssetKey],
    partition_keys: Sequence[str],
    tags: Mapping[str, str],
    title: str,
    description: str,
) -> PartitionBackfill:
    """Return a backfill of assets over partitions, ready for `DagsterInstance.add_backfill`."""
    # Loads modules that only `mm backfill --launch` needs.
    from dagster._core.execution.backfill import PartitionBackfill
    from dagster._core.utils import make_new_backfill_id

    return PartitionBackfill.from_asset_partitions(
        backfill_id=make_new_backfill_id(),
        asset_graph=definitions.resolve_asset_graph(),
        partition_names=partition_keys,
        asset_selection=assets,
        backfill_timestamp=time.time(),
        tags=tags,
        dynamic_partitions_store=instance,
        all_partitions=False,
        title=title,
        description=description,
        run_config=None,
    )


def error_message(error: SerializableErrorInfo) -> str:
    """Return the message of a stored error in one line, as a sentence without the names of classes."""
    # `message` is the last line of Python's traceback: MODULE.CLASS: MESSAGE.
    line = " ".join(error.message.split())
    message = re.sub(rf"^([\w.]+\.)?{re.escape(error.cls_name or '')}: ", "", line)
    return sentence_of(error.cls_name or "", message)


def backfill_daemon_is_healthy(instance: dg.DagsterInstance) -> bool:
    """Return whether a daemon that executes backfills has sent a heartbeat within `HEARTBEAT_TOLERANCE`."""
    # Loads all daemons, which takes about a second.
    from dagster._daemon.controller import get_daemon_statuses

    statuses = get_daemon_statuses(instance, ["BACKFILL"], heartbeat_tolerance_seconds=HEARTBEAT_TOLERANCE)
    return bool(statuses["BACKFILL"].healthy) if "BACKFILL" in statuses else False


def open_home(home: Path) -> dg.DagsterInstance:
    """Open the instance of a Dagster home; where its configuration names no storage, with `SqliteStorage`."""
    import yaml
    from dagster._core.instance.ref import InstanceRef

    configured = yaml.safe_load((home / "dagster.yaml").read_text("utf-8")) or {}
    if any("storage" in name for name in configured):
        return dg.DagsterInstance.get()
    storage = {
        "module": "mm_assets.dagster_storage",
        "class": "SqliteStorage",
        "config": {"base_dir": str(home)},
    }
    return dg.DagsterInstance.from_ref(
        InstanceRef.from_dir(str(home), overrides={"storage": {"custom": storage}})
    )
