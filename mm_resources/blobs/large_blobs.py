"""What reading blobs comes down to: large ones as local files, streams that are copied and hashed, and what goes wrong."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, cached_property, partial
from multiprocessing.util import Finalize
from pathlib import Path
from typing import BinaryIO

from mm_embed_kernels.errors import SampleError
from mm_embed_kernels.identity import file_hash
from mm_resources.blobs.references import Reference, reference_of
from mm_resources.storage.store import Store

_COPY_BYTES = 1 << 20


@cache
def large_blobs() -> _LargeBlobs:
    return _LargeBlobs()


class _LargeBlobs:
    """Large blobs as local files, verified once per process and state of the file."""

    # A batch mostly cuts one long medium into segments; more copies than this only fill the disk.
    COPIES = 4

    def __init__(self) -> None:
        self._verified: set[tuple[str, int, int]] = set()
        self._copies: OrderedDict[str, Path] = OrderedDict()

    def file(self, store: Store, digest: str, path: str) -> Path:
        reference = reference_of(path)
        with blob_faults(digest, path):
            if reference is not None:
                reference.check()
                found = (
                    Path(reference.uri)
                    if reference.is_local
                    else self._copy(digest, partial(_save, reference))
                )
            else:
                found = (
                    Path(store.path(path))
                    if store.is_local
                    else self._copy(digest, partial(store.download, path))
                )
            info = found.stat()
            state = (str(found), info.st_size, info.st_mtime_ns)
            if state not in self._verified:
                if file_hash(found) != digest:
                    self._drop(digest)
                    raise damaged(digest, path)
                self._verified.add(state)
        return found

    def _drop(self, digest: str) -> None:
        """Forget a copy, so that the blob is read again once it is mended."""
        if digest in self._copies:
            self._copies.pop(digest).unlink(missing_ok=True)

    def _copy(self, digest: str, save: Callable[[Path], None]) -> Path:
        if digest not in self._copies:
            target = Path(self._folder) / digest
            save(target)
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


def copy_stream(stream: BinaryIO, sink: BinaryIO | None = None) -> tuple[str, int]:
    """Read a stream to its end, writing what comes; its sha256 and size."""
    state, size = hashlib.sha256(), 0
    while part := stream.read(_COPY_BYTES):
        if sink is not None:
            sink.write(part)
        state.update(part)
        size += len(part)
    return state.hexdigest(), size


@contextmanager
def blob_faults(digest: str, path: str) -> Iterator[None]:
    """What goes wrong in the store while a blob is read, as the sample's failure."""
    try:
        yield
    except FileNotFoundError:
        raise missing(digest, path) from None
    except OSError as error:
        raise SampleError(
            "store_error", f"{path}: {type(error).__name__}: {error}", retryable=True
        ) from error


def _save(reference: Reference, target: Path) -> None:
    with reference.open() as stream, target.open("wb") as sink:
        copy_stream(stream, sink)


def missing(digest: str, path: str) -> SampleError:
    return SampleError(
        "blob_missing",
        f"blob {digest} is not in the store ({path}); the next backfill fetches it again",
        retryable=True,
    )


def damaged(digest: str, path: str) -> SampleError:
    if reference := reference_of(path):
        return reference.changed("no longer holds the bytes that were hashed")
    return SampleError(
        "blob_damaged",
        f"blob {digest} in {path} no longer has its hash; the next backfill fetches it again",
        retryable=True,
    )
