"""List the modules of the suite and measure each of them in a process of its own."""

from __future__ import annotations

import importlib
import multiprocessing
import pkgutil
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path

from benchmarks import ratios
from benchmarks.ratios import Row
from mm_resources.storage.process import configure_process


def names() -> list[str]:
    """Return the modules of the suite: those with a function `rows`."""
    modules = [
        item.name
        for item in pkgutil.iter_modules([str(Path(__file__).parent)])
        if not item.name.startswith("_")
    ]
    return [name for name in modules if hasattr(importlib.import_module(f"benchmarks.{name}"), "rows")]


def measure(name: str, share: float, pairs: int) -> Iterator[Row]:
    """Measure a module in a process of its own and yield its rows as they are finished.

    Raises:
        RuntimeError: if the module fails; its traceback is printed.
    """
    spawn = multiprocessing.get_context("spawn")
    receiver, sender = spawn.Pipe(duplex=False)
    process = spawn.Process(target=_measure, args=(sender, name, share, pairs))
    process.start()
    sender.close()
    try:
        while (row := receiver.recv()) is not None:
            yield row
    except EOFError:
        process.join()
        raise RuntimeError(f"benchmarks.{name} ended with {process.exitcode}") from None
    process.join()


def _measure(sender: Connection, name: str, share: float, pairs: int) -> None:
    configure_process()
    ratios.PAIRS = pairs
    for row in importlib.import_module(f"benchmarks.{name}").rows(share):
        sender.send(row)
    sender.send(None)
