"""What belongs to the suite, and a process of its own for each of its modules."""

from __future__ import annotations

import importlib
import multiprocessing
import pkgutil
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path

from benchmarks import ratios
from benchmarks.ratios import Row


def names() -> list[str]:
    """The modules of the suite."""
    found = [
        item.name
        for item in pkgutil.iter_modules([str(Path(__file__).parent)])
        if not item.name.startswith("_")
    ]
    return [name for name in found if hasattr(importlib.import_module(f"benchmarks.{name}"), "rows")]


def measured(name: str, share: float, pairs: int) -> Iterator[Row]:
    """The rows of a module, measured in a process of its own, as they come.

    Raises:
        RuntimeError: when the module fails; its traceback is printed.
    """
    spawn = multiprocessing.get_context("spawn")
    here, there = spawn.Pipe(duplex=False)
    process = spawn.Process(target=_measure, args=(there, name, share, pairs))
    process.start()
    there.close()
    try:
        while (row := here.recv()) is not None:
            yield row
    except EOFError:
        process.join()
        raise RuntimeError(f"benchmarks.{name} ended with {process.exitcode}") from None
    process.join()


def _measure(there: Connection, name: str, share: float, pairs: int) -> None:
    ratios.PAIRS = pairs
    for row in importlib.import_module(f"benchmarks.{name}").rows(share):
        there.send(row)
    there.send(None)
