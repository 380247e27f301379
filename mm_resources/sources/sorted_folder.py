"""The entries of a local folder in the order of their names, however many they are."""

from __future__ import annotations

import heapq
import os
import pickle
import tempfile
from collections.abc import Iterator
from typing import IO, NamedTuple

# Entries that are sorted in memory, and entries of one pickle; more entries are merged from temporary files.
_RUN, _BLOCK = 100_000, 1_000


class FolderEntry(NamedTuple):
    """An entry of a folder; a link to a folder counts as no folder."""

    name: str
    is_folder: bool
    is_link: bool


def sorted_entries(folder: str) -> Iterator[FolderEntry]:
    """Yield all entries of a folder, sorted by name.

    Raises:
        OSError: when the folder cannot be read.
    """
    runs: list[IO[bytes]] = []
    recent: list[FolderEntry] = []
    try:
        with os.scandir(folder) as scan:
            for item in scan:
                recent.append(FolderEntry(item.name, item.is_dir(follow_symlinks=False), item.is_symlink()))
                if len(recent) >= _RUN:
                    runs.append(_write_run(recent))
                    recent = []
        yield from heapq.merge(sorted(recent), *map(_read_run, runs))
    finally:
        for run in runs:
            run.close()


def _write_run(entries: list[FolderEntry]) -> IO[bytes]:
    entries.sort()
    run = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `sorted_entries`
    for start in range(0, len(entries), _BLOCK):
        pickle.dump([tuple(entry) for entry in entries[start : start + _BLOCK]], run)
    run.seek(0)
    return run


def _read_run(run: IO[bytes]) -> Iterator[FolderEntry]:
    while True:
        try:
            block = pickle.load(run)
        except EOFError:
            return
        yield from map(FolderEntry._make, block)
