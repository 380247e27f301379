"""Read blobs: large ones through local files; hash while copying; map I/O errors to sample errors."""

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
def large_blob_files() -> LargeBlobFiles:
    """Return the files of this process."""
    return LargeBlobFiles()


class LargeBlobFiles:
    """Large blobs as local files, each verified once per process and state of the file."""

    # A batch mostly cuts one long medium into segments; more copies than this only fill the disk.
    COPIES = 4

    def __init__(self) -> None:
        self._verified: set[tuple[str, int, int]] = set()
        self._copies: OrderedDict[str, Path] = OrderedDict()

    def file(self, store: Store, digest: str, path: str) -> Path:
        """Return the blob's own file where it is local, else a copy.

        Raises:
            SampleError: ``blob_missing``, ``blob_damaged`` or ``store_error``; of a referenced blob also
                ``source_changed`` or ``fetch_error``.
        """
        with read_errors(digest, path):
            file = self._local_file(store, digest, path)
            info = file.stat()
            state = (str(file), info.st_size, info.st_mtime_ns)
            if state not in self._verified:
                if file_hash(file) != digest:
                    self._drop(digest)
                    raise damaged_blob(digest, path)
                self._verified.add(state)
        return file

    def _local_file(self, store: Store, digest: str, path: str) -> Path:
        reference = reference_of(path)
        if reference is None:
            return (
                Path(store.path(path))
                if store.is_local
                else self._copy(digest, partial(store.download, path))
            )
        reference.check()
        return Path(reference.uri) if reference.is_local else self._copy(digest, partial(_save, reference))

    def _drop(self, digest: str) -> None:
        """Remove a copy, so that the blob is read again after its repair."""
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
    """Read a stream to its end, copying it to `sink`; return its SHA-256 and size."""
    state, size = hashlib.sha256(), 0
    while part := stream.read(_COPY_BYTES):
        if sink is not None:
            sink.write(part)
        state.update(part)
        size += len(part)
    return state.hexdigest(), size


def _save(reference: Reference, target: Path) -> None:
    with reference.open() as stream, target.open("wb") as sink:
        copy_stream(stream, sink)


@contextmanager
def read_errors(digest: str, path: str) -> Iterator[None]:
    """Raise the store's errors while a blob is read as the sample's error.

    Raises:
        SampleError: ``blob_missing`` or ``store_error``.
    """
    try:
        yield
    except FileNotFoundError:
        raise SampleError(
            "blob_missing",
            f"blob {digest} is not in the store ({path}); the next backfill fetches it again",
            retryable=True,
        ) from None
    except OSError as error:
        raise SampleError(
            "store_error", f"{path}: {type(error).__name__}: {error}", retryable=True
        ) from error


def is_lost(error: SampleError) -> bool:
    """Return whether a blob does not lie where it was read; False for trouble of the store."""
    return error.error_class in ("blob_missing", "blob_damaged")


def damaged_blob(digest: str, path: str) -> SampleError:
    """Return the error of a blob whose bytes do not have its hash."""
    if reference := reference_of(path):
        return reference.change_error("no longer holds the bytes that were hashed")
    return SampleError(
        "blob_damaged",
        f"blob {digest} in {path} no longer has its hash; the next backfill fetches it again",
        retryable=True,
    )
