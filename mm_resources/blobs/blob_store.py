"""Content-addressed blobs: small ones together in immutable packs, large ones as objects of their own.

A pack (or object) is written first, then its index rows: a crash between the two leaves bytes that nothing references,
never a reference to bytes that are not there.
"""

from __future__ import annotations

import hashlib
import os
import uuid
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import pyarrow as pa

from mm_embed_kernels.errors import SampleError
from mm_embed_kernels.identity import content_hash
from mm_embed_kernels.modalities import Media
from mm_resources.blobs.blob_index import CONDEMNED, INDEX, Location
from mm_resources.blobs.damage_log import DAMAGED
from mm_resources.blobs.large_blobs import blob_faults, copy_stream, damaged, large_blobs
from mm_resources.blobs.references import reference_of
from mm_resources.metering import count
from mm_resources.storage import lance_datasets
from mm_resources.storage.hash_set import HashSet
from mm_resources.storage.store import INCOMING, LARGE_BYTES, Store

PACK_BYTES = 64 << 20
PACKS = "blobs/packs"
_T = TypeVar("_T")
# How long an object that is not indexed yet is surely left alone; far shorter than garbage collection waits.
RECENT = timedelta(hours=1)


class BlobStore:
    """The blobs of a store. Picklable; implements `mm_embed_kernels.kernels.base.BlobReader`."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._known: HashSet | None = None
        # Of large blobs; so few that a set of them is small.
        self._known_sizes: set[int] = set()

    def __getstate__(self) -> dict[str, Any]:
        return {"store": self.store, "_known": None, "_known_sizes": set()}

    @property
    def _index_uri(self) -> str:
        return self.store.uri("blobs/index.lance")

    def index(self, columns: list[str] | None = None) -> pa.RecordBatchReader:
        """Locations of all blobs; a blob stored by two writers at once has two, both good."""
        return lance_datasets.reader(lance_datasets.open_dataset(self._index_uri), INDEX, columns)

    def places(self) -> pa.RecordBatchReader:
        """Where blobs lie that may be referenced: on the index, or condemned and not yet given up."""

        def streams() -> Iterator[pa.RecordBatch]:
            # Before and after, so that one that is put back or condemned in between is seen at least once.
            before = self.condemned("NOT struck")
            yield from self.index()
            for reader in (before, self.condemned("NOT struck")):
                for batch in reader:
                    yield batch.select(INDEX.names)

        return pa.RecordBatchReader.from_batches(INDEX, streams())

    def read(self, content_hash: str, path: str, offset: int, size: int) -> bytes:
        """The bytes of a blob, verified; from where the index has it, if they no longer lie where they did.

        Raises:
            SampleError: ``blob_missing``, ``blob_damaged`` or ``store_error``; all retryable, the bytes are not at fault.
        """
        data = self._found(self._read, content_hash, path, offset, size)
        count(bytes_read=len(data))
        return data

    def _read(self, content_hash: str, path: str, offset: int, size: int) -> bytes:
        reference = reference_of(path)
        with blob_faults(content_hash, path):
            if reference is None:
                data = self.store.read_range(path, offset, offset + size)
            else:
                with reference.open() as stream:
                    data = stream.read(size + 1)
        if hashlib.sha256(data).hexdigest() != content_hash:
            raise damaged(content_hash, path)
        return data

    def media(self, content_hash: str, path: str, offset: int, size: int) -> Media:
        """A blob as `read` gives it or, where it is an object of its own, as a local file whose hash was verified.

        The file is the object itself where the store is local, else a copy that the process keeps for its next segments.

        Raises:
            SampleError: as `read`.
        """
        if size <= LARGE_BYTES:
            return self.read(content_hash, path, offset, size)
        found = self._found(self._file, content_hash, path, offset, size)
        count(bytes_read=size)
        return found

    def _file(self, content_hash: str, path: str, offset: int, size: int) -> Path:
        return large_blobs().file(self.store, content_hash, path)

    def _found(self, load: Callable[..., _T], content_hash: str, path: str, offset: int, size: int) -> _T:
        """What `load` gives of a place or, where the blob has moved or was stored again, of its present one."""
        try:
            return load(content_hash, path, offset, size)
        except SampleError as error:
            if error.error_class not in ("blob_missing", "blob_damaged"):
                raise
            where = f"content_hash = '{content_hash}'"
            places = (
                lance_datasets.reader(lance_datasets.open_dataset(self._index_uri), INDEX, where=where)
                .read_all()
                .to_pylist()
            )
            for place in places:
                if (place["path"], place["offset"]) != (path, offset):
                    return load(**place)
            raise

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
        """Store one large blob without holding it in memory; its content hash and size.

        A local file is read twice where that may save writing it: it is hashed first, so that known bytes are not sent to a
        remote store. What comes over the network is read once, and gets its name when its hash is known.

        Raises:
            OSError: what the stream raises, or the store.
            SampleError: ``source_changed``, when a file changed between the two readings.
        """
        size = _file_size(stream)
        self._known_hashes()
        if size is not None and (not self.store.is_local or size in self._known_sizes):
            return self._put_file(stream, size)
        incoming = f"{INCOMING}/{uuid.uuid4().hex}"
        with self.store.writer(incoming, size) as sink:
            digest, size = copy_stream(stream, sink)
        if self._knows(digest):
            self.store.remove(incoming)
            return digest, size
        name = self._name(digest)
        self.store.adopt(self.store.path(incoming), name)
        self._append([Location(digest, name, 0, size)])
        return digest, size

    def _put_file(self, stream: BinaryIO, size: int) -> tuple[str, int]:
        digest, size = copy_stream(stream)
        if self._knows(digest):
            return digest, size
        name = self._name(digest)
        stream.seek(0)
        with self.store.writer(name, size) as sink:
            if copy_stream(stream, sink) != (digest, size):
                raise SampleError(
                    "source_changed", "the file changed while it was read; it is read anew", retryable=True
                )
        self._append([Location(digest, name, 0, size)])
        return digest, size

    def _name(self, digest: str) -> str:
        """The name for a large blob that the index lacks.

        An object may lie there all the same: a young one was left by a writer that died, and is written over. An old one may
        be removed at any moment (see `mm_resources.maintenance.garbage_collection`), so the blob takes another name.
        """
        name = f"blobs/sha256/{digest[:2]}/{digest[2:4]}/{digest}"
        found = self.store.entry(name)
        if found is None or found.modified > datetime.now(UTC) - RECENT:
            return name
        return f"{name}.{uuid.uuid4().hex[:8]}"

    def _write_pack(self, pack: dict[str, bytes]) -> None:
        name = f"{PACKS}/{uuid.uuid4().hex}.pack"
        self.store.write(name, b"".join(pack.values()))
        found, offset = [], 0
        for digest, data in pack.items():
            found.append(Location(digest, name, offset, len(data)))
            offset += len(data)
        self._append(found)

    def _append(self, found: list[Location]) -> None:
        """Index what is written; only from then on does it count as stored."""
        lance_datasets.append(
            self._index_uri, pa.Table.from_pylist([vars(item) for item in found], schema=INDEX)
        )
        known = self._known_hashes()
        for item in found:
            known.add(bytes.fromhex(item.content_hash))
            self._known_sizes.update([item.size] if item.size > LARGE_BYTES else ())

    def _knows(self, digest: str) -> bool:
        return bytes.fromhex(digest) in self._known_hashes()

    def _known_hashes(self) -> HashSet:
        if self._known is None:
            self._known_sizes = set()

            def hashes() -> Iterator[Iterable[bytes]]:
                for batch in self.index(["content_hash", "size"]):
                    self._known_sizes.update(size for size in batch["size"].to_pylist() if size > LARGE_BYTES)
                    yield map(bytes.fromhex, batch["content_hash"].to_pylist())

            self._known = HashSet(hashes())
        return self._known

    def forget(self, hashes: Iterable[str]) -> None:
        """Strike blobs off the index, so that their bytes are stored anew when they come again."""
        lance_datasets.delete(self._index_uri, "content_hash", hashes)
        self._known = None

    def drop(self, digest: str) -> None:
        """Remove a large blob, under whichever of its names, and strike it off the index."""
        self.forget([digest])
        folder = f"blobs/sha256/{digest[:2]}/{digest[2:4]}"
        for name in self.store.names(folder):
            if name.startswith(digest):
                self.store.remove(f"{folder}/{name}")

    # -- blobs that are damaged or missing

    def sample(self, count: int) -> pa.RecordBatchReader:
        """Places of so many blobs, chosen at random."""
        index = lance_datasets.open_dataset(self._index_uri)
        found = (
            INDEX.empty_table()
            if index is None
            else index.sample(min(count, index.count_rows()), columns=INDEX.names)
        )
        return found.to_reader()

    def verify(self, place: Location) -> None:
        """See that a blob lies at a place of it, without holding a large one in memory.

        Raises:
            SampleError: as `read`.
        """
        if place.size <= LARGE_BYTES:
            self._read(**vars(place))
            return
        with blob_faults(place.content_hash, place.path), self.store.reader(place.path) as stream:
            if copy_stream(stream) != (place.content_hash, place.size):
                raise damaged(place.content_hash, place.path)

    @property
    def _damaged_uri(self) -> str:
        return self.store.uri("blobs/damaged.lance")

    def report_damaged(self, found: list[Location]) -> None:
        """Strike places that do not hold their blobs off the index, and note blobs that lie nowhere else."""
        for item in found:
            lance_datasets.delete(
                self._index_uri, "content_hash", [item.content_hash], f"path = '{item.path}'"
            )
        self._known = None
        lost = sorted({item.content_hash for item in found if not self._knows(item.content_hash)})
        if lost:
            lance_datasets.append(self._damaged_uri, pa.table({"content_hash": lost}, schema=DAMAGED))

    def damaged(self) -> set[str]:
        """Blobs that were reported and not fetched again since."""
        found = lance_datasets.reader(lance_datasets.open_dataset(self._damaged_uri), DAMAGED)
        return {value for batch in found for value in batch["content_hash"].to_pylist()}

    def mended(self, hashes: Iterable[str]) -> None:
        lance_datasets.delete(self._damaged_uri, "content_hash", hashes)

    # -- blobs that nothing references

    @property
    def condemned_uri(self) -> str:
        return self.store.uri("blobs/condemned.lance")

    def condemned(self, where: str | None = None) -> pa.RecordBatchReader:
        """Places off the index whose bytes still lie there."""
        return lance_datasets.reader(lance_datasets.open_dataset(self.condemned_uri), CONDEMNED, where=where)

    def condemn(self, found: list[Location]) -> None:
        """Strike places off the index, leaving their bytes for a while."""
        now = datetime.now(UTC)
        rows = [{**vars(item), "at": now, "struck": False} for item in found]
        lance_datasets.append(self.condemned_uri, pa.Table.from_pylist(rows, schema=CONDEMNED))
        self.forget([item.content_hash for item in found])

    def enter(self, found: list[Location]) -> None:
        """Put places (back) on the index, but for blobs that it has."""
        found = [item for item in found if not self._knows(item.content_hash)]
        if found:
            self._append(found)

    def move(self, pack: str) -> None:
        """Write what the index has of a pack into a new one; readers that still know the old one find it by the index."""
        index = lance_datasets.open_dataset(self._index_uri)
        rows = lance_datasets.reader(index, INDEX, where=f"path = '{pack}'").read_all().to_pylist()
        self._write_pack({row["content_hash"]: self._read(**row) for row in rows})
        lance_datasets.delete(self._index_uri, "path", [pack])


def _file_size(stream: BinaryIO) -> int | None:
    """Bytes of a local file; None for any other stream, which costs as much to read again as to write."""
    try:
        return os.fstat(stream.fileno()).st_size
    except (AttributeError, OSError):
        return None
