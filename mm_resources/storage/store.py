"""The store: objects below one root, a local folder or any fsspec URL."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from mm_embed_kernels.errors import UserError
from mm_embed_kernels.extras import explain_missing
from mm_resources.metering import count
from mm_resources.storage.filesystems import (
    client_errors,
    content_tag,
    fsspec_options,
    is_local,
    is_out_of_range,
    local_tags,
    modified_at,
    read_options,
)
from mm_resources.storage.permissions import create_temporary, make_folders

if TYPE_CHECKING:
    import fsspec


# Blobs of more bytes are objects of their own, and are read as streams or local files.
LARGE_BYTES = 8 << 20
# Objects being written: large blobs until their hash is known, others until they are complete.
INCOMING = "blobs/incoming"
_TEMPORARY = "/.tmp-"
_WRITTEN = ("blobs", "registry", "stages", "ledger/picks")
# S3 takes 10,000 parts per object: with the larger parts an object of unknown size may have 320 GB.
_PART_BYTES, _UNKNOWN_PART_BYTES, _PARTS = 8 << 20, 32 << 20, 9_000
_REQUESTS = 16


@dataclass(frozen=True)
class StoredObject:
    """An object of the store, or a folder of objects.

    Attributes:
        name: below the store's root.
        size: bytes; 0 for a folder.
        modified: when an object was last written (UTC).
    """

    name: str
    is_folder: bool
    size: int
    modified: datetime


@dataclass(frozen=True)
class Store:
    """Objects below one root. Picklable; each process opens the file system for itself.

    Whatever the root, errors of the network or a server are raised as OSErrors.
    """

    root: str

    @cached_property
    def _filesystem(self) -> tuple[Any, str]:
        return _open_filesystem(self.root)

    def __getstate__(self) -> dict[str, Any]:
        return {"root": self.root}

    @property
    def fs(self) -> fsspec.AbstractFileSystem:
        return self._filesystem[0]

    @property
    def is_local(self) -> bool:
        return is_local(self.root)

    def path(self, name: str) -> str:
        """Path of `name` for the fsspec file system."""
        return f"{self._filesystem[1]}/{name}"

    def uri(self, name: str) -> str:
        """URI of `name` for Lance."""
        return self.path(name) if self.is_local else f"{self.root.rstrip('/')}/{name}"

    def entry(self, name: str) -> StoredObject | None:
        """Return an object's size and time of writing; None when it does not exist."""
        try:
            with client_errors(name):
                return _entry(name, self.fs.info(self.path(name)))
        except FileNotFoundError:
            return None

    def sizes(self, names: Iterable[str]) -> dict[str, int]:
        """Return the bytes of each object that exists, by name; a remote store gets many requests at once."""
        with ThreadPoolExecutor(1 if self.is_local else _REQUESTS) as pool:
            return {entry.name: entry.size for entry in pool.map(self.entry, names) if entry is not None}

    def read(self, name: str) -> bytes:
        """Return an object's bytes.

        Raises:
            FileNotFoundError: when it does not exist.
        """
        with client_errors(name):
            return bytes(self.fs.cat_file(self.path(name), **read_options(self.root)))

    def read_range(self, name: str, start: int, end: int) -> bytes:
        """Return the bytes from `start` up to `end`, exclusive; fewer where the object ends before."""
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
        """Open an object as a stream that keeps little of it in memory."""
        with client_errors(name), self.fs.open(self.path(name), "rb", block_size=_PART_BYTES) as stream:
            yield stream

    def write(self, name: str, data: bytes, sync: bool = True) -> None:
        """Write an object atomically: a reader sees the whole object or none.

        Args:
            sync: whether a local file is on the disk at the end; without, a power failure may lose it.
        """
        path = self.path(name)
        count(bytes_written=len(data))
        if not self.is_local:
            with client_errors(name):
                self.fs.pipe_file(path, data)
            return
        temporary = _write_temporary(path, data, sync)
        os.replace(temporary, path)

    def create(self, name: str, data: bytes) -> bool:
        """Write `name` atomically if it does not exist; return False when it does.

        A remote store's answer may be lost after it has written, and then the client's own second try is
        refused. So the bytes that are there decide: `data` must differ between writers wherever that matters
        (by a run's id, a time).
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
        temporary = _write_temporary(path, data)
        try:
            os.link(temporary, path)
        except FileExistsError:
            return False
        finally:
            os.unlink(temporary)
        return True

    @contextmanager
    def writer(self, name: str, size: int | None = None) -> Iterator[BinaryIO]:
        """Open a sink for an object larger than memory, sent in parts.

        The object appears when the block ends, or never if it raises. Only for names that derive from the
        content or that no other writer uses: an object of this size counts as written, since the answer to
        the last request may be lost.

        Args:
            size: bytes that will be written, if known.
        """
        path = self.path(name)
        if self.is_local:
            make_folders(os.path.dirname(path))
            handle, temporary = create_temporary(os.path.dirname(path), _TEMPORARY[1:])
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
                written = self.entry(name)
                if written is None or written.size != sink.tell():
                    raise

    def adopt(self, temporary: str, name: str) -> None:
        """Move a finished object (an absolute fsspec path inside the store) to its name."""
        path = self.path(name)
        if self.is_local:
            make_folders(os.path.dirname(path))
            os.replace(temporary, path)
        else:
            with client_errors(name):
                self.fs.mv(temporary, path)

    def names(self, folder: str) -> list[str]:
        """Return the base names in a folder, sorted; empty when it does not exist."""
        try:
            with client_errors(folder):
                paths = self.fs.ls(self.path(folder), detail=False)
        except FileNotFoundError:
            return []
        return sorted(str(path).rstrip("/").rsplit("/", 1)[-1] for path in paths)

    def tags(self, folder: str) -> dict[str, str]:
        """Return a tag of each object below a folder, by name; another content has another tag.

        A remote store lists a thousand objects in one request. A tag is "" where the store states nothing
        about the content.
        """
        base = self.path(folder)
        if self.is_local:
            return {f"{folder}/{name}": tag for name, tag in local_tags(base)}
        try:
            with client_errors(folder):
                infos = self.fs.find(base, detail=True)
        except FileNotFoundError:
            return {}
        prefix = base.lstrip("/")
        return {
            f"{folder}{str(path).lstrip('/').removeprefix(prefix)}": content_tag(info)
            for path, info in infos.items()
        }

    def tables(self, folder: str) -> Iterator[str]:
        """Yield the names of the Lance datasets below a folder."""
        for entry in self.entries(folder):
            if entry.name.endswith(".lance"):
                yield entry.name
            elif entry.is_folder:
                yield from self.tables(entry.name)

    def objects(self, folder: str) -> Iterator[StoredObject]:
        """Yield the objects below a folder, folder by folder, without those inside Lance datasets."""
        for entry in self.entries(folder):
            if not entry.is_folder:
                yield entry
            elif not entry.name.endswith(".lance"):
                yield from self.objects(entry.name)

    def unfinished_objects(self, older_than: timedelta) -> Iterator[str]:
        """Yield the names of objects that a writer began and left unfinished, older than this."""
        before = datetime.now(UTC) - older_than
        # A remote store lists complete objects only, and large blobs that wait for their hash.
        for folder in _WRITTEN if self.is_local else (INCOMING,):
            for entry in self.objects(folder):
                if (entry.name.startswith(INCOMING) or _TEMPORARY in entry.name) and entry.modified < before:
                    yield entry.name

    def remove(self, name: str) -> None:
        """Remove an object; no error when it does not exist."""
        with client_errors(name), suppress(FileNotFoundError):
            self.fs.rm_file(self.path(name))

    def entries(self, folder: str) -> list[StoredObject]:
        """Return the objects and folders in a folder, sorted by name; empty when it does not exist."""
        try:
            with client_errors(folder):
                infos = self.fs.ls(self.path(folder), detail=True)
        except FileNotFoundError:
            return []
        by_name = {info["name"].rstrip("/").rsplit("/", 1)[-1]: info for info in infos}
        return [_entry(f"{folder}/{name}", by_name[name]) for name in sorted(by_name)]


def remove_tree(store: Store, folder: str) -> None:
    """Remove a folder with all it has; no error when it does not exist."""
    path = store.path(folder)
    with client_errors(folder), suppress(FileNotFoundError):
        if store.is_local:
            store.fs.rm(path, recursive=True)
        # By their own names: a bucket has no folders, and fsspec would ask it to remove this one.
        elif files := store.fs.find(path):
            store.fs.rm(files)


def _open_filesystem(root: str) -> tuple[Any, str]:
    """Return the file system of a root and its path there; raise `UserError` for a root of no known kind."""
    from fsspec.core import url_to_fs

    try:
        with explain_missing(f"MM_STORE {root}"):
            fs, path = url_to_fs(root, **fsspec_options(root))
    except (ImportError, ValueError) as error:
        raise UserError(f"MM_STORE {root}: {error}") from error
    return fs, path.rstrip("/")


def _entry(name: str, info: dict[str, Any]) -> StoredObject:
    # An object of unknown age counts as new: it must never be removed as old.
    modified = modified_at(info) or datetime.now(UTC)
    return StoredObject(name, info["type"] == "directory", int(info.get("size") or 0), modified)


def _write_temporary(path: str, data: bytes, sync: bool = True) -> str:
    """Write a file beside `path` and return its path."""
    folder = Path(path).parent
    make_folders(folder)
    handle, temporary = create_temporary(folder, _TEMPORARY[1:])
    with os.fdopen(handle, "wb") as stream:
        stream.write(data)
        stream.flush()
        if sync:
            os.fsync(stream.fileno())
    return temporary
