"""Report what imports change in a fresh process, as JSON: ``python -m tests.resources.storage.process_state MODULE[:NAME] ...``.

``*`` stands for every module of the three packages but the code location, which configures its process when it is loaded,
and the plug-in of MLflow.
"""

from __future__ import annotations

import csv
import gc
import importlib
import json
import locale
import logging
import multiprocessing
import os
import pkgutil
import signal
import socket
import sys
import threading
import warnings
from typing import Any

import pyarrow as pa

PACKAGES = ("mm_embed_kernels", "mm_resources", "mm_assets")
CODE_LOCATION = "mm_assets.definitions"
# MLflow, which changes much, imports it as its plug-in, and so do logs to MLflow.
PLUGIN = "mm_resources.retrieval.mlflow_dataset"


def state() -> dict[str, Any]:
    """Everything of a process that its other code may notice."""
    loggers = {"root": logging.root, **logging.root.manager.loggerDict}
    return {
        "environment": dict(os.environ),
        "folder": os.getcwd(),
        "memory pool": pa.default_memory_pool().backend_name,
        "loggers": {
            name: [each.level, repr(each.handlers), repr(each.filters), each.disabled, each.propagate]
            for name, each in loggers.items()
            if isinstance(each, logging.Logger)
            and (each.level or each.handlers or each.filters or each.disabled or not each.propagate)
        },
        "logging": [
            logging.root.manager.disable,
            repr(logging.lastResort),
            repr(logging.getLoggerClass()),
            repr(logging.getLogRecordFactory()),
        ],
        "warnings": [repr(each) for each in warnings.filters] + [repr(warnings.showwarning)],
        "signals": {str(number): repr(signal.getsignal(number)) for number in signal.valid_signals()},
        "garbage collection": [gc.isenabled(), gc.get_threshold(), gc.get_freeze_count(), len(gc.callbacks)],
        "threads": [thread.name for thread in threading.enumerate()],
        "native threads": len(os.listdir("/proc/self/task")),
        "hooks": [repr(sys.excepthook), repr(threading.excepthook), repr(sys.unraisablehook)],
        "limits": [sys.getrecursionlimit(), sys.getswitchinterval(), csv.field_size_limit()],
        "sockets": socket.getdefaulttimeout(),
        "locale": locale.setlocale(locale.LC_ALL),
        "start method": multiprocessing.get_start_method(allow_none=True),
        "paths": list(sys.path),
    }


def modules() -> list[str]:
    """Every module of the packages but the code location."""
    found = list(PACKAGES)
    for package in PACKAGES:
        parent = importlib.import_module(package)
        found += [info.name for info in pkgutil.walk_packages(parent.__path__, f"{package}.")]
    return [name for name in found if name not in (CODE_LOCATION, PLUGIN)]


def touch(entry: str) -> None:
    """Import a module, and read or call one of its names (``NAME()``)."""
    module, _, name = entry.partition(":")
    loaded = importlib.import_module(module)
    if name:
        value = getattr(loaded, name.removesuffix("()"))
        if name.endswith("()"):
            value()


def main(entries: list[str]) -> None:
    """Print {what changed: [before, after]}."""
    # Other people's libraries may do as they like; here it is about these packages.
    for library in ("alembic", "dagster", "duckdb", "numpy", "pydantic", "sqlalchemy", "torch", "typer"):
        importlib.import_module(library)
    before = state()
    for entry in entries:
        for each in modules() if entry == "*" else [entry]:
            touch(each)
    after = state()
    print(json.dumps({name: [before[name], after[name]] for name in before if before[name] != after[name]}))


if __name__ == "__main__":
    main(sys.argv[1:])
