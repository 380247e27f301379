"""The store: one root, a local folder or any fsspec URL, below which everything lies."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from mm_embed_kernels.errors import UserError
from mm_resources.metering import count
from mm_resources.storage.filesystems import client_errors, fsspec_options, is_out_of_range, modified_at

if TYPE_CHECKING:
    import fsspec


# Blobs of more bytes are objects of their own, and are read as streams or local files.
LARGE_BYTES = 8 << 20
# Raised when a store that an earlier version wrote can no longer be read.
LAYOUT = 2
_LAYOUT = "registry/layout.json"
# Objects that are being written: large blobs until their hash is known, others until they are whole.
INCOMING = "blobs/incoming"
_TEMPORARY = "/.tmp-"
_WRITTEN = ("blobs", "registry", "stages")
# S3 takes 10,000 parts of an object, so that with the larger ones an object of unknown size may have 320 GB.
_PART_BYTES, _UNKNOWN_PART_BYTES, _PARTS = 8 << 20, 32 << 20, 9_000
_REQUESTS = 16


@dataclass(frozen=True)
class Entry:
    """What lies in a folder: a name below the store's root, and of an object its size in bytes and when it was written."""

    name: str
    is_folder: bool
    size: int
    modified: datetime


@dataclass(frozen=True)
class Store:
    """Objects below one root. Picklable; the file system is opened where it is used.

    Whatever the root, what the network or a server does wrong comes out as an OSError.
    """

    root: str

    @cached_property
    def _opened(self) -> tuple[Any, str]:
        from fsspec.core import url_to_fs

        try:
            fs, path = url_to_fs(self.root, **fsspec_options(self.root))
        except (ImportError, ValueError) as error:
            raise UserError(f"MM_STORE {self.root}: {error}") from error
        return fs, path.rstrip("/")

    def __getstate__(self) -> dict[str, Any]:
        return {"root": self.root}

    @property
    def fs(self) -> fsspec.AbstractFileSystem:
        return self._opened[0]

    @property
    def is_local(self) -> bool:
        return "://" not in self.root or self.root.startswith("file://")

    def path(self, name: str) -> str:
        """Path of `name` for the fsspec file system."""
        return f"{self._opened[1]}/{name}"

    def uri(self, name: str) -> str:
        """URI of `name` for Lance."""
        return self.path(name) if self.is_local else f"{self.root.rstrip('/')}/{name}"

    def check_layout(self) -> None:
        """See that this version reads the store.

        Raises:
            UserError: when another version wrote it.
        """
        try:
            found = int(json.loads(self.read(_LAYOUT))["layout"])
        except FileNotFoundError:
            if not self.names("registry/datasets"):
                return
            found = 1
        if found != LAYOUT:
            raise UserError(
                f"{self.root} has store layout {found}, and this version reads layout {LAYOUT}; use the version that wrote it, "
                "or set MM_STORE to a new folder and register the specs again"
            )

    def mark_layout(self) -> None:
        """Say which layout a new store has."""
        self.check_layout()
        self.create(_LAYOUT, json.dumps({"layout": LAYOUT}).encode())

    def exists(self, name: str) -> bool:
        with client_errors(name):
            return bool(self.fs.exists(self.path(name)))

    def entry(self, name: str) -> Entry | None:
        """An object's size and age; None when there is none."""
        try:
            with client_errors(name):
                return _entry(name, self.fs.info(self.path(name)))
        except FileNotFoundError:
            return None

    def sizes(self, names: Iterable[str]) -> dict[str, int]:
        """Bytes of each object that exists; a remote store is asked for many at once."""
        with ThreadPoolExecutor(1 if self.is_local else _REQUESTS) as pool:
            return {found.name: found.size for found in pool.map(self.entry, names) if found is not None}

    def read(self, name: str) -> bytes:
        """Raises FileNotFoundError."""
        with client_errors(name):
            return bytes(self.fs.cat_file(self.path(name)))

    def read_range(self, name: str, start: int, end: int) -> bytes:
        """Bytes `start` to `end` without it; fewer, as from a file, where the object ends before."""
        if self.is_local:
            with open(self.path(name), "rb") as stream:
                stream.seek(start)
                return stream.read(end - start)
        if start >= end:
            return b""
        try:
            with client_errors(name):
                return bytes(self.fs.cat_file(self.path(name), start=start, end=end))
        except OSError as error:
            if is_out_of_range(error):
                return b""
            raise

    def download(self, name: str, target: Path) -> None:
        """Copy an object into a local file, streaming."""
        with client_errors(name):
            self.fs.get_file(self.path(name), str(target))

    @contextmanager
    def reader(self, name: str) -> Iterator[BinaryIO]:
        """An object as a stream, of which little lies in memory."""
        with client_errors(name), self.fs.open(self.path(name), "rb", block_size=_PART_BYTES) as stream:
            yield stream

    def write(self, name: str, data: bytes) -> None:
        """Atomic: a reader sees the whole object or none."""
        path = self.path(name)
        count(bytes_written=len(data))
        if not self.is_local:
            with client_errors(name):
                self.fs.pipe_file(path, data)
            return
        temporary = _temporary(path, data)
        os.replace(temporary, path)

    def create(self, name: str, data: bytes) -> bool:
        """Write `name` only if it does not exist, atomically; False when it does.

        A remote store's answer may be lost after it has written, and then the client's own second try is refused. So what
        counts is whose bytes stand there: `data` has to tell its writer from others wherever that matters (a run's id, a time).
        """
        path = self.path(name)
        if not self.is_local:
            try:
                with client_errors(name):
                    self.fs.pipe_file(path, data, mode="create")
            except OSError as error:
                try:
                    return self.read(name) == data
                except FileNotFoundError:
                    raise error from None
            return True
        temporary = _temporary(path, data)
        try:
            os.link(temporary, path)
        except FileExistsError:
            return False
        finally:
            os.unlink(temporary)
        return True

    @contextmanager
    def writer(self, name: str, size: int | None = None) -> Iterator[BinaryIO]:
        """A sink for an object that no memory holds, sent in parts: it appears when the block ends, or never if it raises.

        Only for names that mean their content, or that nobody else uses: an object of this size there counts as written,
        since the answer to the last request may be lost like any other.

        Args:
            size: bytes that will come, if known.
        """
        path = self.path(name)
        if self.is_local:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            handle, temporary = tempfile.mkstemp(dir=os.path.dirname(path), prefix=_TEMPORARY[1:])
            try:
                with os.fdopen(handle, "wb") as stream:
                    yield stream
                    stream.flush()
                    count(bytes_written=stream.tell())
                    os.fsync(stream.fileno())
                os.replace(temporary, path)
            except BaseException:
                os.unlink(temporary)
                raise
            return
        part = _UNKNOWN_PART_BYTES if size is None else max(_PART_BYTES, size // _PARTS)
        with client_errors(name):
            sink = self.fs.open(path, "wb", block_size=part, autocommit=False)
            try:
                yield sink
                sink.close()
                count(bytes_written=sink.tell())
            except BaseException:
                with suppress(OSError):
                    sink.discard()
                raise
            try:
                sink.commit()
            except OSError:
                found = self.entry(name)
                if found is None or found.size != sink.tell():
                    raise

    def adopt(self, temporary: str, name: str) -> None:
        """Move a finished object (an absolute fsspec path inside the store) to its name."""
        path = self.path(name)
        if self.is_local:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            os.replace(temporary, path)
        else:
            with client_errors(name):
                self.fs.mv(temporary, path)

    def names(self, folder: str) -> list[str]:
        """Base names in a folder, sorted; empty when it does not exist."""
        try:
            with client_errors(folder):
                found = self.fs.ls(self.path(folder), detail=False)
        except FileNotFoundError:
            return []
        return sorted(str(item).rstrip("/").rsplit("/", 1)[-1] for item in found)

    def tables(self, folder: str) -> Iterator[str]:
        """Names of the Lance datasets below a folder, which are not looked into."""
        for entry in self.entries(folder):
            if entry.name.endswith(".lance"):
                yield entry.name
            elif entry.is_folder:
                yield from self.tables(entry.name)

    def objects(self, folder: str) -> Iterator[Entry]:
        """The objects below a folder, folder by folder; Lance datasets are not looked into."""
        for entry in self.entries(folder):
            if not entry.is_folder:
                yield entry
            elif not entry.name.endswith(".lance"):
                yield from self.objects(entry.name)

    def unfinished(self, older_than: timedelta) -> Iterator[str]:
        """Names of objects that a writer began, before that long, and never gave their names."""
        before = datetime.now(UTC) - older_than
        # A remote store shows nothing that is not whole, but for what waits for its hash.
        for folder in _WRITTEN if self.is_local else (INCOMING,):
            for entry in self.objects(folder):
                if (entry.name.startswith(INCOMING) or _TEMPORARY in entry.name) and entry.modified < before:
                    yield entry.name

    def remove(self, name: str) -> None:
        """Remove an object; no error when it is gone already."""
        with client_errors(name), suppress(FileNotFoundError):
            self.fs.rm_file(self.path(name))

    def entries(self, folder: str) -> list[Entry]:
        """What lies in a folder, sorted by name; empty when it does not exist."""
        try:
            with client_errors(folder):
                found = self.fs.ls(self.path(folder), detail=True)
        except FileNotFoundError:
            return []
        named = {item["name"].rstrip("/").rsplit("/", 1)[-1]: item for item in found}
        return [_entry(f"{folder}/{name}", named[name]) for name in sorted(named)]


def _entry(name: str, info: dict[str, Any]) -> Entry:
    # An object whose age nobody knows is taken to be new: it must never be removed as old.
    modified = modified_at(info) or datetime.now(UTC)
    return Entry(name, info["type"] == "directory", int(info.get("size") or 0), modified)


def _temporary(path: str, data: bytes) -> str:
    folder = Path(path).parent
    folder.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=folder, prefix=_TEMPORARY[1:])
    with os.fdopen(handle, "wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())
    return temporary
