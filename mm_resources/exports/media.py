"""Media of exported rows: the bytes of the sample, or its part that the row is, cut in the sandbox."""

from __future__ import annotations

import mimetypes
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pyarrow as pa

from mm_embed_kernels.errors import SampleError
from mm_embed_kernels.kernels.blob_stage import map_in_sandbox
from mm_embed_kernels.modalities import Media, get
from mm_embed_kernels.sandbox.sandbox import Limits
from mm_resources.blobs.blob_store import BlobStore
from mm_resources.exports.base import Medium
from mm_resources.retrieval.training_rows import open_medium, read_media

_READERS = 8
_LIMITS = Limits(workers=2, item_seconds=120.0)
# Where the standard library knows none, or one that readers of shards do not decode.
_SUFFIXES = {
    "image/jpeg": "jpg", "image/tiff": "tif", "audio/mpeg": "mp3", "audio/x-wav": "wav",
    "audio/wav": "wav", "audio/ogg": "ogg", "audio/x-flac": "flac", "audio/flac": "flac",
    "audio/mp4": "m4a", "video/x-matroska": "mkv", "video/ogg": "ogv", "text/plain": "txt",
}  # fmt: skip
WHOLE_SPANS = ("full", "")


def suffix_of(mime: str) -> str:
    """Return the suffix of a file of a media type, without the dot."""
    if mime in _SUFFIXES:
        return _SUFFIXES[mime]
    guessed = mimetypes.guess_extension(mime)
    return guessed[1:] if guessed else mime.rpartition("/")[2].removeprefix("x-")


class MediaReader:
    """Reads the media of rows.

    Args:
        blobs: of the store.
        kind: modality of the rows.
        whole: whether a medium is the whole sample; else it is the row's span, cut anew: a part of a text as
            it was embedded, of a sound as mono FLAC of its own rate, of a film as MP4 without sound.
    """

    def __init__(self, blobs: BlobStore, kind: str, whole: bool) -> None:
        self.blobs, self.modality, self.whole = blobs, get(kind), whole

    def read(self, places: pa.Table, prefix: str) -> list[Medium]:
        """Return the media of rows.

        Args:
            places: ``media`` (the blobs' locations), ``span``, ``mime`` and ``text`` of the rows.
            prefix: of these columns.

        Raises:
            SampleError: for the first row whose blob cannot be read or cut, naming it.
            RemovedRows: when its content was forgotten.
        """
        columns = (places[f"{prefix}{name}"].to_pylist() for name in ("media", "span", "mime", "text"))
        rows = list(zip(*columns, strict=True))
        made: list[Medium | None] = [
            Medium(text.encode(), "txt")
            if not self.whole
            and text is not None
            and span not in WHOLE_SPANS
            and self.modality.name == "text"
            else None
            for _, span, _, text in rows
        ]
        missing = [i for i, medium in enumerate(made) if medium is None]
        with ThreadPoolExecutor(_READERS) as pool:
            blobs = list(pool.map(self._load, (rows[i][0] for i in missing)))
        for i, data in zip(missing, blobs, strict=True):
            if self.whole or rows[i][1] in WHOLE_SPANS:
                made[i] = Medium(
                    data if isinstance(data, bytes) else data.read_bytes(), suffix_of(rows[i][2])
                )
        cut = [(i, data) for i, data in zip(missing, blobs, strict=True) if made[i] is None]
        for (i, _), medium in zip(cut, self._cut([(data, rows[i][1]) for i, data in cut]), strict=True):
            if isinstance(medium, SampleError):
                raise locate_error(medium, rows[i][0]["content_hash"], rows[i][1])
            made[i] = medium
        return [medium for medium in made if medium is not None]

    def _load(self, location: dict[str, Any]) -> Media:
        if self.whole or not self.modality.streams:
            return read_media(self.blobs, location)
        return open_medium(self.blobs, location)

    def _cut(self, parts: list[tuple[Media, str]]) -> list[Medium | SampleError]:
        if not parts:
            return []
        answers = map_in_sandbox(
            _LIMITS,
            self.modality.cut,
            [data for data, _ in parts],
            [(span,) for _, span in parts],
            self.modality,
        )
        return [_medium_of(answer) for answer in answers]


def _medium_of(answer: Any) -> Medium | SampleError:
    """Return what a cut has answered; it is not trusted to have done so."""
    if isinstance(answer, SampleError):
        return answer
    if isinstance(answer, tuple) and [type(each) for each in answer] == [bytes, str] and answer[1].isalnum():
        return Medium(*answer)
    return SampleError("bad_answer", "the decoder answered no medium")


def locate_error(error: SampleError, digest: str, span: str) -> SampleError:
    """Return an error that names the content and the span it is about."""
    return SampleError(
        error.error_class, f"content {digest[:16]}, {span}: {error.message}", retryable=error.retryable
    )
