"""Content-addressed blobs: small ones together in immutable packs, large ones as objects of their own.

A pack (or object) is written first, then its index rows: a crash between the two leaves bytes that nothing references,
never a reference to bytes that are not there.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import uuid
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache, cached_property
from multiprocessing.util import Finalize
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa

from mm_embed_kernels.errors import SampleError
from mm_embed_kernels.identity import content_hash, file_hash
from mm_embed_kernels.modalities import Media
from mm_resources import lance_io
from mm_resources.hashes import HashSet
from mm_resources.store import INCOMING, Store

LARGE_BYTES = 8 << 20
PACK_BYTES = 64 << 20
INDEX = pa.schema([("content_hash", pa.string()), ("path", pa.string()), ("offset", pa.int64()), ("size", pa.int64())])


@dataclass(frozen=True)
class Location:
    """Where a blob lies below the store's root."""

    content_hash: str
    path: str
    offset: int
    size: int


class BlobStore:
    """The blobs of a store. Picklable; implements `mm_embed_kernels.kernel.BlobReader`."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._known: HashSet | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {"store": self.store, "_known": None}

    @property
    def _index_uri(self) -> str:
        return self.store.uri("blobs/index.lance")

    def index(self, columns: list[str] | None = None) -> pa.RecordBatchReader:
        """Locations of all blobs; a blob stored by two writers at once has two, both good."""
        return lance_io.reader(lance_io.open_dataset(self._index_uri), INDEX, columns)

    def read(self, content_hash: str, path: str, offset: int, size: int) -> bytes:
        """The bytes of a blob, verified.

        Raises:
            SampleError: ``blob_missing``, ``blob_damaged`` or ``store_error``; all retryable, the bytes are not at fault.
        """
        try:
            data = self.store.read_range(path, offset, offset + size)
        except FileNotFoundError:
            raise _missing(content_hash, path) from None
        except OSError as error:
            raise SampleError("store_error", f"{path}: {type(error).__name__}: {error}", retryable=True) from error
        if hashlib.sha256(data).hexdigest() != content_hash:
            raise _damaged(content_hash, path)
        return data

    def media(self, content_hash: str, path: str, offset: int, size: int) -> Media:
        """A blob as `read` gives it or, where it is an object of its own, as a local file whose hash was verified.

        The file is the object itself where the store is local, else a copy that the process keeps for its next segments.

        Raises:
            SampleError: as `read`.
        """
        if size <= LARGE_BYTES:
            return self.read(content_hash, path, offset, size)
        return _large_blobs().file(self.store, content_hash, path)

    def put(self, blobs: Iterable[bytes]) -> list[str]:
        """Store small blobs, those that are new in one or more packs; their content hashes, in order."""
        hashes: list[str] = []
        pack: dict[str, bytes] = {}
        size = 0
        known = self._known_hashes()
        for data in blobs:
            digest = content_hash(data)
            hashes.append(digest)
            if digest not in pack and bytes.fromhex(digest) not in known:
                pack[digest] = data
                size += len(data)
            if size >= PACK_BYTES:
                self._write_pack(pack)
                pack, size = {}, 0
        if pack:
            self._write_pack(pack)
        return hashes

    def put_stream(self, stream: BinaryIO) -> tuple[str, int]:
        """Store one large blob without holding it in memory; its content hash and size."""
        incoming = f"{INCOMING}/{uuid.uuid4().hex}"
        state, size = hashlib.sha256(), 0
        self.store.fs.makedirs(self.store.path(INCOMING), exist_ok=True)
        with self.store.fs.open(self.store.path(incoming), "wb") as sink:
            while part := stream.read(LARGE_BYTES):
                sink.write(part)
                state.update(part)
                size += len(part)
        digest = state.hexdigest()
        if bytes.fromhex(digest) not in self._known_hashes():
            name = f"blobs/sha256/{digest[:2]}/{digest[2:4]}/{digest}"
            self.store.adopt(self.store.path(incoming), name)
            self._append([Location(digest, name, 0, size)])
        else:
            self.store.fs.rm_file(self.store.path(incoming))
        return digest, size

    def _write_pack(self, pack: dict[str, bytes]) -> None:
        name = f"blobs/packs/{uuid.uuid4().hex}.pack"
        self.store.write(name, b"".join(pack.values()))
        found, offset = [], 0
        for digest, data in pack.items():
            found.append(Location(digest, name, offset, len(data)))
            offset += len(data)
        self._append(found)

    def _append(self, found: list[Location]) -> None:
        """Index what is written; only from then on does it count as stored."""
        lance_io.append(self._index_uri, pa.Table.from_pylist([vars(item) for item in found], schema=INDEX))
        known = self._known_hashes()
        for item in found:
            known.add(bytes.fromhex(item.content_hash))

    def _known_hashes(self) -> HashSet:
        if self._known is None:
            self._known = HashSet(map(bytes.fromhex, batch["content_hash"].to_pylist()) for batch in self.index(["content_hash"]))
        return self._known

    def forget(self, hashes: Iterable[str]) -> None:
        """Strike blobs off the index, so that their bytes are stored anew when they come again."""
        lance_io.delete(self._index_uri, "content_hash", hashes)
        self._known = None

    def sizes(self, paths: Iterable[str]) -> dict[str, int]:
        """Bytes of each object or pack that exists."""
        found = {}
        for path in paths:
            try:
                found[path] = int(self.store.fs.size(self.store.path(path)))
            except FileNotFoundError:
                continue
        return found


@cache
def _large_blobs() -> _LargeBlobs:
    return _LargeBlobs()


class _LargeBlobs:
    """Large blobs as local files, verified once per process and state of the file."""

    # A batch mostly cuts one long medium into segments; more copies than this only fill the disk.
    COPIES = 4

    def __init__(self) -> None:
        self._verified: set[tuple[str, int, int]] = set()
        self._copies: OrderedDict[str, Path] = OrderedDict()

    def file(self, store: Store, digest: str, path: str) -> Path:
        try:
            found = Path(store.path(path)) if store.is_local else self._copy(store, digest, path)
            info = found.stat()
            state = (str(found), info.st_size, info.st_mtime_ns)
            if state not in self._verified:
                if file_hash(found) != digest:
                    raise _damaged(digest, path)
                self._verified.add(state)
        except FileNotFoundError:
            raise _missing(digest, path) from None
        except OSError as error:
            raise SampleError("store_error", f"{path}: {type(error).__name__}: {error}", retryable=True) from error
        return found

    def _copy(self, store: Store, digest: str, path: str) -> Path:
        if digest not in self._copies:
            target = Path(self._folder) / digest
            store.fs.get_file(store.path(path), str(target))
            self._copies[digest] = target
            while len(self._copies) > self.COPIES:
                self._copies.popitem(last=False)[1].unlink(missing_ok=True)
        self._copies.move_to_end(digest)
        return self._copies[digest]

    @cached_property
    def _folder(self) -> str:
        folder = tempfile.mkdtemp(prefix="mm-blobs-")
        Finalize(self, shutil.rmtree, args=(folder,), kwargs={"ignore_errors": True}, exitpriority=5)
        return folder


def _missing(digest: str, path: str) -> SampleError:
    return SampleError("blob_missing", f"blob {digest} is not in the store ({path}); the next backfill fetches it again", retryable=True)


def _damaged(digest: str, path: str) -> SampleError:
    return SampleError(
        "blob_damaged", f"blob {digest} in {path} no longer has its hash; the next backfill fetches it again", retryable=True
    )
