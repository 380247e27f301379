"""The records of a folder of the registry, each read once for each of its contents.

One listing returns the tags of all records. A record that is known under its tag is not read again: this
process has read it, or it is in the folder's index, an object with copies of the records that earlier
processes have read. A copy counts only where its tag agrees, so that an old, damaged or missing index, and
any number of concurrent writers, cost reads and nothing else. A record that cannot be read stays unknown, and
each of its readers tries it again.
"""

from __future__ import annotations

import gzip
import json
import logging
import zlib
from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

from mm_resources.storage.store import Store

_log = logging.getLogger(__name__)
_INDEXES = "registry/indexes"
# Records that are read one by one; of more, the index is read first, and written after.
_FEW = 32
_READERS = 16
# Folders whose records a process has in memory.
_FOLDERS = 64


class RecordFolder:
    """The records of one folder, for any number of threads.

    Args:
        indexed: whether to use the folder's index; without, each record is read itself.
    """

    def __init__(self, store: Store, folder: str, indexed: bool = True) -> None:
        self.store, self.folder, self.indexed = store, folder, indexed
        self._known: dict[str, tuple[str, bytes]] = {}

    def listing(self) -> Listing:
        """Return the records that there are now."""
        return Listing(self, self.store.tags(self.folder))

    def load(self, names: Collection[str], tags: Mapping[str, str]) -> None:
        """Read the records that are not known, from the index or one by one."""
        missing = self._names_to_read(names, tags)
        if len(missing) >= _FEW and self.indexed:
            self._known.update(self._read_index())
            missing = self._names_to_read(names, tags)
        with ThreadPoolExecutor(1 if self.store.is_local else _READERS) as pool:
            for name, raw in zip(missing, pool.map(self._read, missing), strict=True):
                if raw is not None:
                    self._known[name] = (tags[name], raw)
        if len(missing) >= _FEW and self.indexed:
            self._write_index(tags)

    def get(self, name: str, tag: str) -> bytes:
        """Return a record; it is read where it is not known under its tag.

        Raises:
            OSError: when it cannot be read.
        """
        known = self._known.get(name)
        return known[1] if known is not None and known[0] == tag != "" else self.store.read(name)

    def _names_to_read(self, names: Collection[str], tags: Mapping[str, str]) -> list[str]:
        return [name for name in names if tags[name] == "" or self._known.get(name, ("",))[0] != tags[name]]

    def _read(self, name: str) -> bytes | None:
        """Return a record; None where it cannot be read, which its readers find out for themselves."""
        try:
            return self.store.read(name)
        except OSError:
            return None

    @property
    def _index(self) -> str:
        return f"{_INDEXES}/{self.folder.removeprefix('registry/')}.json.gz"

    def _read_index(self) -> dict[str, tuple[str, bytes]]:
        """Return the records of the index, with their tags; none where there is none or it is damaged."""
        try:
            rows = json.loads(gzip.decompress(self.store.read(self._index)))
            return {name: (tag, record.encode()) for name, (tag, record) in rows.items()}
        except (OSError, EOFError, zlib.error, ValueError, TypeError, AttributeError) as error:
            _log.debug("%s is made again: %s", self._index, error)
            return {}

    def _write_index(self, tags: Mapping[str, str]) -> None:
        rows = {}
        for name, (tag, raw) in list(self._known.items()):
            if tag and tags.get(name) == tag:
                try:
                    rows[name] = (tag, raw.decode())
                except UnicodeDecodeError:
                    continue  # damaged: its readers name it
        try:
            self.store.write(self._index, gzip.compress(json.dumps(rows).encode(), mtime=0))
        except OSError as error:
            # A store that may only be read, or a full one: each process reads the records themselves.
            _log.debug("%s cannot be written: %s", self._index, error)


class Listing:
    """The records of a folder as one listing found them.

    Attributes:
        names: their names in the store, folder by folder.
    """

    def __init__(self, folder: RecordFolder, tags: dict[str, str]) -> None:
        self._folder, self._tags = folder, tags
        self.names = sorted(tags, key=lambda name: name.split("/"))

    def load(self, names: Collection[str]) -> None:
        """Read records that are wanted next, with few requests."""
        self._folder.load(names, self._tags)

    def read(self, name: str) -> bytes:
        """Return a record.

        Raises:
            OSError: when it cannot be read.
        """
        return self._folder.get(name, self._tags[name])


def list_records(store: Store, folder: str, fresh: bool = False) -> Listing:
    """Return the records of a folder that there are now.

    Args:
        fresh: whether to read each of them itself, in search of damage.
    """
    return (RecordFolder(store, folder, indexed=False) if fresh else _folder(store, folder)).listing()


@lru_cache(_FOLDERS)
def _folder(store: Store, folder: str) -> RecordFolder:
    """Return a folder's records, the same object for all readers of this process."""
    return RecordFolder(store, folder)
