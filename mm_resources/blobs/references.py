"""Blobs that stay in their sources (`blobs: reference`).

The path of such a blob is the object's URI with its tag; each read compares the tag and the hash.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import BinaryIO

from mm_embed_kernels.errors import SampleError
from mm_embed_kernels.spec.fetch_policy import FetchPolicy
from mm_resources.objects.opener import ObjectOpener
from mm_resources.storage.filesystems import client_errors

_PREFIX = "source:"
_OPENER = ObjectOpener(FetchPolicy())


@dataclass(frozen=True)
class Reference:
    """A whole object of a source.

    Attributes:
        uri: local path or fsspec URL.
        tag: ETag, or size and mtime, when it was hashed.
    """

    uri: str
    tag: str

    @property
    def path(self) -> str:
        """The blob's path in `content_blobs`, in place of an object below the store's root."""
        return f"{_PREFIX}{self.uri}#{self.tag}"

    @property
    def is_local(self) -> bool:
        return "://" not in self.uri

    @contextmanager
    def open(self) -> Iterator[BinaryIO]:
        """Open the object as a stream, whose bytes the caller compares with their hash.

        Raises:
            SampleError: ``blob_missing``, ``source_changed`` or ``fetch_error``; all retryable.
        """
        self.check()
        with self._open() as stream, client_errors(self.uri):
            yield stream

    def check(self) -> None:
        """Check that the object has the tag that it had when it was hashed; raises as `open`."""
        with client_errors(self.uri):
            now = _OPENER.tag(self.uri)
        if now is None:
            self._open().close()  # raises the cause: gone, or out of reach
        elif now != self.tag:
            raise self.change_error(f"was referenced as {self.tag} and is {now} now")

    def change_error(self, how: str) -> SampleError:
        """Return the error of an object that is not as it was hashed."""
        return SampleError(
            "source_changed", f"{self.uri} {how}; put it back, or register a new version", retryable=True
        )

    def _open(self) -> BinaryIO:
        try:
            return _OPENER.open_sample(self.uri)
        except SampleError as error:
            if error.error_class != "not_found":
                raise
            gone = (
                f"{self.uri} is referenced, not copied, and is gone; put it back, or register a new version"
            )
            raise SampleError("blob_missing", gone, retryable=True) from None


def reference_of(path: str) -> Reference | None:
    """Parse a blob's path; None for a path below the store's root."""
    if not path.startswith(_PREFIX):
        return None
    uri, _, tag = path.removeprefix(_PREFIX).rpartition("#")
    return Reference(uri, tag)
