"""Content-addressed blobs: small ones together in immutable packs, large ones as objects of their own.

A pack or object is written first, then its rows of the index: a crash between the two leaves unreferenced
bytes, never a reference to missing bytes.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Collection, Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import BinaryIO, TypeVar

from mm_embed_kernels.errors import SampleError
from mm_embed_kernels.identity import content_hash
from mm_embed_kernels.modalities import Media
from mm_resources.blobs.blob_index import BlobIndex, Location, locations_of
from mm_resources.blobs.damage_log import DamageLog
from mm_resources.blobs.large_blobs import (
    copy_stream,
    damaged_blob,
    is_lost,
    large_blob_files,
    read_errors,
)
from mm_resources.blobs.presence import PresenceCheck
from mm_resources.blobs.receipts import Receipts
from mm_resources.blobs.references import reference_of
from mm_resources.metering import count
from mm_resources.storage.store import INCOMING, LARGE_BYTES, Store

PACK_BYTES = 64 << 20
PACKS = "blobs/packs"
LARGE = "blobs/sha256"
# An object that is not indexed yet is surely left alone for this long; garbage collection waits far longer.
RECENT = timedelta(hours=1)
_Data = TypeVar("_Data")


class BlobStore:
    """The blobs of a store. Picklable; implements `mm_embed_kernels.kernels.base.BlobReader`.

    Attributes:
        index: where the blobs lie.
        damage: blobs that could not be read.
        receipts: contents that were forgotten and are refused from then on.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self.index, self.damage, self.receipts = BlobIndex(store), DamageLog(store), Receipts(store)

    def read(self, content_hash: str, path: str, offset: int, size: int) -> bytes:
        """Return the verified bytes of a blob, from another indexed location if it has moved.

        Raises:
            SampleError: ``blob_missing``, ``blob_damaged`` or ``store_error``; all retryable, since the
                bytes may be intact. Of a referenced blob also ``source_changed`` or ``fetch_error``.
        """
        data = self._read_anywhere(self._read, Location(content_hash, path, offset, size))
        count(bytes_read=len(data))
        return data

    def media(self, content_hash: str, path: str, offset: int, size: int) -> Media:
        """Return a blob as `read` does or, where it is an object of its own, as a verified local file.

        The file is the object itself where the store is local, else a copy that the process caches for
        further segments.

        Raises:
            SampleError: as `read`.
        """
        if size <= LARGE_BYTES:
            return self.read(content_hash, path, offset, size)
        file = self._read_anywhere(self._file, Location(content_hash, path, offset, size))
        count(bytes_read=size)
        return file

    def verify(self, location: Location) -> None:
        """Check that a blob lies at a location, without holding a large one in memory.

        Raises:
            SampleError: as `read`.
        """
        if location.size <= LARGE_BYTES:
            self._read(location)
            return
        with (
            read_errors(location.content_hash, location.path),
            self.store.reader(location.path) as stream,
        ):
            if copy_stream(stream) != (location.content_hash, location.size):
                raise damaged_blob(location.content_hash, location.path)

    def presence_check(self) -> PresenceCheck:
        """Return a check of the presence of blobs, which looks up each object of the store once."""
        return PresenceCheck(self.store)

    def _read(self, location: Location) -> bytes:
        reference = reference_of(location.path)
        with read_errors(location.content_hash, location.path):
            if reference is None:
                end = location.offset + location.size
                data = self.store.read_range(location.path, location.offset, end)
            else:
                with reference.open() as stream:
                    data = stream.read(location.size + 1)
        if content_hash(data) != location.content_hash:
            raise damaged_blob(location.content_hash, location.path)
        return data

    def _file(self, location: Location) -> Path:
        return large_blob_files().file(self.store, location.content_hash, location.path)

    def _read_anywhere(self, read: Callable[[Location], _Data], location: Location) -> _Data:
        """Read at a location or, where the blob has moved or was stored again, at another indexed one.

        The index is read until it names no untried location, since a blob may move again meanwhile.
        """
        tried: set[tuple[str, int]] = set()
        waiting, first = [location], SampleError("blob_missing", location.content_hash)
        while waiting:
            for each in waiting:
                tried.add((each.path, each.offset))
                try:
                    return read(each)
                except SampleError as error:
                    if not is_lost(error):
                        raise
                    first = error if each is location else first
            found = self.index.locations(location.content_hash)
            waiting = [other for other in found if (other.path, other.offset) not in tried]
        raise first

    def put(self, blobs: Iterable[bytes]) -> list[str]:
        """Store small blobs, new ones in one or more packs, and return their content hashes, in order."""
        hashes: list[str] = []
        pack: dict[str, bytes] = {}
        size = 0
        for data in blobs:
            digest = content_hash(data)
            hashes.append(digest)
            if digest not in pack and digest not in self.index:
                pack[digest] = data
                size += len(data)
            if size >= PACK_BYTES:
                self._write_pack(pack)
                pack, size = {}, 0
        if pack:
            self._write_pack(pack)
        return hashes

    def put_stream(self, stream: BinaryIO) -> tuple[str, int]:
        """Store one large blob without holding it in memory; return its content hash and size.

        A local file is read twice where that may save writing it: it is hashed first, so that known bytes are
        not sent to a remote store. A network stream is read once, and gets its name when its hash is known.

        Raises:
            OSError: of the stream or the store.
            SampleError: ``source_changed``, when a file changed between the two readings.
        """
        file_size = _file_size(stream)
        if file_size is not None and (not self.store.is_local or self.index.has_large(file_size)):
            return self._put_file(stream, file_size)
        incoming = f"{INCOMING}/{uuid.uuid4().hex}"
        with self.store.writer(incoming, file_size) as sink:
            digest, size = copy_stream(stream, sink)
        if digest in self.index:
            self.store.remove(incoming)
            return digest, size
        name = self._new_name(digest)
        self.store.adopt(self.store.path(incoming), name)
        self.index.append([Location(digest, name, 0, size)])
        return digest, size

    def _put_file(self, stream: BinaryIO, size: int) -> tuple[str, int]:
        digest, size = copy_stream(stream)
        if digest in self.index:
            return digest, size
        name = self._new_name(digest)
        stream.seek(0)
        with self.store.writer(name, size) as sink:
            if copy_stream(stream, sink) != (digest, size):
                raise SampleError(
                    "source_changed", "the file changed while it was read; it is read anew", retryable=True
                )
        self.index.append([Location(digest, name, 0, size)])
        return digest, size

    def _new_name(self, digest: str) -> str:
        """Return a name for a large blob that is not indexed.

        An object may lie at its usual name all the same. A young one was left by a writer that died, and is
        overwritten. An old one may be removed at any moment (see
        `mm_resources.maintenance.garbage_collection`), so the blob takes another name.
        """
        name = f"{LARGE}/{digest[:2]}/{digest[2:4]}/{digest}"
        entry = self.store.entry(name)
        if entry is None or entry.modified > datetime.now(UTC) - RECENT:
            return name
        return f"{name}.{uuid.uuid4().hex[:8]}"

    def _write_pack(self, pack: dict[str, bytes]) -> None:
        """Write blobs into a new pack, then index them.

        Until it is indexed, forgetting takes the pack for one of a dead writer and may remove it: then its
        blobs are written once more, but those that were forgotten.
        """
        while pack:
            name = f"{PACKS}/{uuid.uuid4().hex}.pack"
            self.store.write(name, b"".join(pack.values()))
            locations, offset = [], 0
            for digest, data in pack.items():
                locations.append(Location(digest, name, offset, len(data)))
                offset += len(data)
            self.index.append(locations)
            if self.store.entry(name) is not None:
                return
            self.index.remove_locations(locations)
            forgotten = self.receipts.tombstones()
            pack = {digest: data for digest, data in pack.items() if digest not in forgotten}

    def report_damaged(self, locations: list[Location]) -> None:
        """Remove damaged locations from the index, and log the blobs that have no other location."""
        self.index.remove_locations(locations)
        lost = {location.content_hash for location in locations if location.content_hash not in self.index}
        if lost:
            self.damage.report(sorted(lost))

    def remove_large(self, digest: str) -> None:
        """Remove a large blob, under each of its names, and its row of the index."""
        self.index.remove([digest])
        folder = f"{LARGE}/{digest[:2]}/{digest[2:4]}"
        for name in self.store.names(folder):
            if name.startswith(digest):
                self.store.remove(f"{folder}/{name}")

    def rewrite_pack(self, path: str) -> None:
        """Move the indexed blobs of a pack into a new one; without any, write none.

        They are indexed in the new one before their rows of the old one go, and the old one stays until its
        owner removes it: at each moment, readers of old locations find them by the index. Blobs that were
        indexed in another one already, before a kill, or by another writer, are not moved again.
        """
        locations = locations_of(self.index.rows(path=path).read_all())
        hashes = [location.content_hash for location in locations]
        moved = {
            other.content_hash
            for other in locations_of(self.index.rows(hashes=hashes).read_all())
            if other.path != path and self._is_good(other)
        }
        self._write_pack(
            {each.content_hash: self._read(each) for each in locations if each.content_hash not in moved}
        )
        self.index.remove_pack(path)

    def _is_good(self, location: Location) -> bool:
        try:
            self.verify(location)
        except SampleError:
            return False
        return True

    def remove_pack(self, path: str, refused: Collection[str]) -> None:
        """Remove a pack without indexed blobs, and store again what a writer has indexed in it meanwhile.

        Args:
            refused: contents that are not stored again.
        """
        data = self.store.read(path) if self.store.entry(path) is not None else b""
        self.store.remove(path)
        late = locations_of(self.index.rows(path=path).read_all())
        self._write_pack(
            {
                location.content_hash: data[location.offset : location.offset + location.size]
                for location in late
                if location.content_hash not in refused
            }
        )
        if late:
            self.index.remove_pack(path)


def _file_size(stream: BinaryIO) -> int | None:
    """Return the bytes of a local file; None for another stream, which costs as much to read as to write."""
    try:
        return os.fstat(stream.fileno()).st_size
    except (AttributeError, OSError):
        return None
