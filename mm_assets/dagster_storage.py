"""Dagster's SQLite storage with one engine for each database, as of Dagster 1.13.27.

Dagster makes an engine for every statement, so that SQLAlchemy compiles each of them anew and SQLite opens
its file again; it reads all migrations of a database to find that there is none to make, and asks anew for
each step whether its partition exists. The files are Dagster's own: the webserver and the daemon read and
write them with the storage that they ship.
"""

from __future__ import annotations

import sqlite3
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from dagster._core.storage.event_log.sqlite.sqlite_event_log import (
    INDEX_SHARD_NAME,
    SqliteEventLogStorage,
)
from dagster._core.storage.runs.sqlite.sqlite_run_storage import SqliteRunStorage
from dagster._core.storage.schedules.sqlite.sqlite_schedule_storage import SqliteScheduleStorage
from dagster._core.storage.sql import create_engine
from dagster._core.storage.sqlite import create_db_conn_string
from dagster._core.storage.sqlite_storage import DagsterSqliteStorage
from sqlalchemy.event import listen
from sqlalchemy.pool import NullPool, QueuePool

if TYPE_CHECKING:
    from dagster._serdes import ConfigurableClassData
    from sqlalchemy.engine import Connection, Engine

# The databases of runs and of assets, and those of the runs that are read at a time.
_DATABASES = 8
# Seconds that a statement waits for another process's transaction, as Dagster does.
_BUSY_SECONDS = 60


class _Engines:
    """The engines of the databases that were used last."""

    def __init__(self) -> None:
        self._engines: OrderedDict[str, Engine] = OrderedDict()
        self._lock = threading.Lock()

    def engine(self, address: str) -> Engine:
        with self._lock:
            if address not in self._engines:
                self._engines[address] = engine = create_engine(
                    address,
                    poolclass=QueuePool,
                    pool_size=1,
                    # Threads take turns at the event log, and wait for SQLite's lock at the runs.
                    connect_args={"timeout": _BUSY_SECONDS, "check_same_thread": False},
                )
                listen(engine, "connect", _sync_at_checkpoints)
            self._engines.move_to_end(address)
            if len(self._engines) > _DATABASES:
                _, oldest = self._engines.popitem(last=False)
                oldest.dispose()
            return self._engines[address]

    def dispose(self) -> None:
        with self._lock:
            while self._engines:
                self._engines.popitem()[1].dispose()


def _sync_at_checkpoints(connection: sqlite3.Connection, _record: object) -> None:
    """Let SQLite write its log through at checkpoints alone: a power failure may cost the last events.

    A killed process costs none. The databases stay consistent either way, and the store decides what is
    published.
    """
    connection.execute("PRAGMA synchronous = NORMAL")


def _is_stamped(engine: Engine, table: str) -> bool:
    """Return whether a database has a table, and a revision: then Dagster's own opening changes nothing."""
    with engine.connect() as connection:
        names = ("alembic_version", table)
        if not all(engine.dialect.has_table(connection, name) for name in names):
            return False
        found = connection.exec_driver_sql("SELECT version_num FROM alembic_version").fetchone()
        return found is not None and bool(found[0])


class _EventLogs(SqliteEventLogStorage):
    def __init__(self, base_dir: str) -> None:
        self._engines = _Engines()
        self._tables: set[str] = set()
        self._partitions: set[tuple[str, str]] = set()
        super().__init__(base_dir)

    def _initdb(self, engine: Engine, for_index_shard: bool = False) -> None:
        if not _is_stamped(engine, "event_logs"):
            super()._initdb(engine, for_index_shard)

    def has_dynamic_partition(self, partitions_def_name: str, partition_key: str) -> bool:
        key = (partitions_def_name, partition_key)
        if key not in self._partitions and super().has_dynamic_partition(*key):
            self._partitions.add(key)
        return key in self._partitions

    def delete_dynamic_partition(self, partitions_def_name: str, partition_key: str) -> None:
        self._partitions.discard((partitions_def_name, partition_key))
        super().delete_dynamic_partition(partitions_def_name, partition_key)

    def has_table(self, table_name: str) -> bool:
        if table_name not in self._tables:
            engine = self._engines.engine(self.conn_string_for_shard(INDEX_SHARD_NAME))
            with engine.connect() as connection:
                if engine.dialect.has_table(connection, table_name):
                    self._tables.add(table_name)  # No migration drops a table.
        return table_name in self._tables

    @contextmanager
    def _connect(self, shard: str) -> Iterator[Connection]:
        with self._db_lock:
            engine = self._engines.engine(self.conn_string_for_shard(shard))
            if shard not in self._initialized_dbs:
                self._initdb(engine)
                self._initialized_dbs.add(shard)
            with engine.connect() as connection, connection.begin():
                yield connection

    def dispose(self) -> None:
        super().dispose()
        self._engines.dispose()


class _Runs(SqliteRunStorage):
    @cached_property
    def _engines(self) -> _Engines:
        return _Engines()

    @contextmanager
    def connect(self) -> Iterator[Connection]:
        with self._engines.engine(self._conn_string).connect() as connection, connection.begin():
            yield connection

    def dispose(self) -> None:
        super().dispose()
        self._engines.dispose()


_Local = TypeVar("_Local", SqliteRunStorage, SqliteScheduleStorage)


def _open(kind: type[_Local], folder: Path, name: str, table: str) -> _Local:
    """Open a database; create it where it lacks its revision or the last of its tables."""
    if (folder / f"{name}.db").is_file():
        address = create_db_conn_string(str(folder), name)
        if _is_stamped(create_engine(address, poolclass=NullPool), table):
            return kind(address)
    return kind.from_local(f"{folder}/")


class SqliteStorage(DagsterSqliteStorage):
    """Storage of the instance of `mm`, in the files that Dagster keeps below a Dagster home."""

    def __init__(self, base_dir: str, inst_data: ConfigurableClassData | None = None) -> None:
        self.base_dir = base_dir
        self._inst_data = inst_data
        history = Path(base_dir) / "history"
        self._run_storage = _open(_Runs, history, "runs", "instance_info")
        self._event_log_storage = _EventLogs(f"{history}/runs/")
        self._schedule_storage = _open(
            SqliteScheduleStorage, Path(base_dir) / "schedules", "schedules", "job_ticks"
        )
        # Not Dagster's own constructor, which opens the files with the storages replaced here.
        super(DagsterSqliteStorage, self).__init__()  # type: ignore[no-untyped-call]

    @classmethod
    def from_config_value(
        cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]
    ) -> SqliteStorage:
        return cls(config_value["base_dir"], inst_data)
