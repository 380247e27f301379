"""The store: one root, a local folder or any fsspec URL, below which everything lies."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mm_embed_kernels.errors import UserError

if TYPE_CHECKING:
    import fsspec


@dataclass(frozen=True)
class Cell:
    """One dataset version of one modality: what a Dagster partition stands for."""

    dataset: str
    version: str
    modality: str

    @property
    def dataset_version(self) -> str:
        return f"{self.dataset}@{self.version}"

    @property
    def partition_key(self) -> str:
        return f"{self.dataset_version}|{self.modality}"

    @property
    def path(self) -> str:
        return f"{self.dataset}/{self.version}/{self.modality}"


# Raised when a store that an earlier version wrote can no longer be read.
LAYOUT = 2
_LAYOUT = "registry/layout.json"
# Objects that are being written: large blobs until their hash is known, others until they are whole.
INCOMING = "blobs/incoming"
_TEMPORARY = "/.tmp-"
_WRITTEN = ("blobs", "registry", "stages")


@dataclass(frozen=True)
class Store:
    """Objects below one root. Picklable; the file system is opened where it is used."""

    root: str

    @cached_property
    def _opened(self) -> tuple[Any, str]:
        from fsspec.core import url_to_fs

        fs, path = url_to_fs(self.root)
        return fs, path.rstrip("/")

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
        return bool(self.fs.exists(self.path(name)))

    def read(self, name: str) -> bytes:
        """Raises FileNotFoundError."""
        return bytes(self.fs.cat_file(self.path(name)))

    def read_range(self, name: str, start: int, end: int) -> bytes:
        if self.is_local:
            with open(self.path(name), "rb") as stream:
                stream.seek(start)
                return stream.read(end - start)
        return bytes(self.fs.cat_file(self.path(name), start=start, end=end))

    def write(self, name: str, data: bytes) -> None:
        """Atomic: a reader sees the whole object or none."""
        path = self.path(name)
        if not self.is_local:
            self.fs.pipe_file(path, data)
            return
        temporary = _temporary(path, data)
        os.replace(temporary, path)

    def create(self, name: str, data: bytes) -> bool:
        """Write `name` only if it does not exist, atomically; False when it does."""
        path = self.path(name)
        if not self.is_local:
            try:
                self.fs.pipe_file(path, data, mode="create")
            except FileExistsError:
                return False
            return True
        temporary = _temporary(path, data)
        try:
            os.link(temporary, path)
        except FileExistsError:
            return False
        finally:
            os.unlink(temporary)
        return True

    def adopt(self, temporary: str, name: str) -> None:
        """Move a finished object (an absolute fsspec path inside the store) to its name."""
        path = self.path(name)
        if self.is_local:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            os.replace(temporary, path)
        else:
            self.fs.mv(temporary, path)

    def names(self, folder: str) -> list[str]:
        """Base names in a folder, sorted; empty when it does not exist."""
        try:
            found = self.fs.ls(self.path(folder), detail=False)
        except FileNotFoundError:
            return []
        return sorted(str(item).rstrip("/").rsplit("/", 1)[-1] for item in found)

    def tables(self, folder: str) -> Iterator[str]:
        """Names of the Lance datasets below a folder, which are not looked into."""
        for name, is_folder in self._entries(folder):
            if name.endswith(".lance"):
                yield name
            elif is_folder:
                yield from self.tables(name)

    def unfinished(self, older_than: timedelta) -> Iterator[str]:
        """Names of objects that a writer began, before that long, and never gave their names."""
        for folder in _WRITTEN:
            yield from self._unfinished(folder, datetime.now(UTC) - older_than)

    def _unfinished(self, folder: str, before: datetime) -> Iterator[str]:
        for name, is_folder in self._entries(folder):
            if is_folder and not name.endswith(".lance"):
                yield from self._unfinished(name, before)
            elif (name.startswith(INCOMING) or _TEMPORARY in name) and _aware(self.fs.modified(self.path(name))) < before:
                yield name

    def remove(self, name: str) -> None:
        self.fs.rm_file(self.path(name))

    def _entries(self, folder: str) -> list[tuple[str, bool]]:
        """(name, whether it is a folder) of what lies in a folder, sorted."""
        try:
            found = self.fs.ls(self.path(folder), detail=True)
        except FileNotFoundError:
            return []
        return sorted((f"{folder}/{item['name'].rstrip('/').rsplit('/', 1)[-1]}", item["type"] == "directory") for item in found)


def _aware(moment: datetime) -> datetime:
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _temporary(path: str, data: bytes) -> str:
    folder = Path(path).parent
    folder.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=folder, prefix=_TEMPORARY[1:])
    with os.fdopen(handle, "wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())
    return temporary
