"""The entries of a local folder in the order of their names, however many they are."""

from __future__ import annotations

import heapq
import os
import pickle
import tempfile
from collections.abc import Iterator
from typing import IO, NamedTuple

# What is sorted in memory; more goes through temporary files, which are merged.
_RUN, _BLOCK = 100_000, 1_000


class Entry(NamedTuple):
    """A name in a folder, whether it is a folder itself, and whether it is a link (then it is no folder here)."""

    name: str
    is_folder: bool
    is_link: bool


def entries(folder: str) -> Iterator[Entry]:
    """All entries, sorted by name.

    Raises:
        OSError: when the folder cannot be read.
    """
    runs: list[IO[bytes]] = []
    held: list[Entry] = []
    try:
        with os.scandir(folder) as scan:
            for found in scan:
                held.append(Entry(found.name, found.is_dir(follow_symlinks=False), found.is_symlink()))
                if len(held) >= _RUN:
                    runs.append(_spilled(held))
                    held = []
        yield from heapq.merge(sorted(held), *map(_read, runs))
    finally:
        for run in runs:
            run.close()


def _spilled(held: list[Entry]) -> IO[bytes]:
    held.sort()
    run = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `entries`
    for start in range(0, len(held), _BLOCK):
        pickle.dump([tuple(entry) for entry in held[start : start + _BLOCK]], run)
    run.seek(0)
    return run


def _read(run: IO[bytes]) -> Iterator[Entry]:
    while True:
        try:
            block = pickle.load(run)
        except EOFError:
            return
        yield from map(Entry._make, block)
