"""Media of samples by their content: ranged bytes, and previews and clips that the sandbox makes."""

from __future__ import annotations

import io
import re
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from threading import BoundedSemaphore, Lock
from typing import Any

import numpy as np
from starlette.responses import FileResponse, Response

from mm_embed_kernels.errors import SampleError
from mm_embed_kernels.kernels.blob_stage import map_in_sandbox
from mm_embed_kernels.kernels.preview import Previewer, read_preview
from mm_embed_kernels.media.clips import CLIP_SIDE, Clipper, read_made
from mm_embed_kernels.media.spans import seconds_of
from mm_embed_kernels.media.tracks import media_type
from mm_embed_kernels.modalities import Media, Preview, get, modalities, modality_of
from mm_embed_kernels.modalities.base import PREVIEW_CHARS, PREVIEW_SIDE
from mm_embed_kernels.sandbox.sandbox import Limits
from mm_resources.serving.problems import Problem
from mm_resources.serving.service import Service
from mm_resources.storage.store import LARGE_BYTES

CONTENT_HASH = r"^[0-9a-f]{64}$"
# What a browser shows without running anything of it; the rest leaves as an attachment.
_SHOWN = re.compile(
    r"image/(png|jpeg|gif|webp|avif|bmp|tiff|heic|heif)|audio/[\w.+-]+|video/[\w.+-]+|application/ogg"
)
_RANGE = re.compile(r"bytes=(\d*)-(\d*)")
_MEDIA_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; sandbox",
    "Accept-Ranges": "bytes",
    # Asked again each time, since a content may be forgotten.
    "Cache-Control": "private, no-cache",
}
_WAVE_HEIGHT = 96
# A blob above this size is previewed only where its modality reads streams.
_MOST_PREVIEWED = LARGE_BYTES * 8
_PREVIEWERS = 4
# A day: no part of a medium begins later.
_LONGEST_SECONDS = 86_400.0
_LIMITS = Limits(workers=2, item_seconds=10.0)


def media_response(service: Service, digest: str, byte_range: str | None, known: str | None) -> Response:
    """Return the bytes of a content, or the range of them that is asked for.

    Args:
        byte_range: header ``Range``.
        known: header ``If-None-Match``.
    """
    medium = _load(service, digest)
    mime, tag = media_type(medium), f'"{digest}"'
    headers = {**_MEDIA_HEADERS, "ETag": tag, "Content-Disposition": _disposition(mime, digest)}
    if known == tag:
        return Response(None, 304, headers)
    mime = _safe_type(mime)
    if isinstance(medium, Path):
        return FileResponse(medium, headers=headers, media_type=mime)
    return _respond_range(medium, mime, headers, byte_range)


def _respond_range(body: bytes, mime: str, headers: dict[str, str], byte_range: str | None) -> Response:
    span = _span(byte_range, len(body))
    if span is None:
        return Response(body, 200, headers, mime)
    begin, end = span
    shown = {**headers, "Content-Range": f"bytes {begin}-{end - 1}/{len(body)}"}
    return Response(body[begin:end], 206, shown, mime)


def _load(service: Service, digest: str) -> Media:
    """Return a content of the store.

    Raises:
        Problem: ``forgotten``, or ``not_found`` where the store never had it.
        SampleError: as `BlobStore.media`.
    """
    blobs = service.catalog.blobs
    if receipt := blobs.receipts.tombstones().get(digest):
        raise Problem("forgotten", f"content {digest[:16]} was forgotten (receipt {receipt})")
    locations = blobs.index.locations(digest)
    if not locations:
        raise Problem("not_found", f"the store has no content {digest[:16]}")
    first = locations[0]
    return blobs.media(first.content_hash, first.path, first.offset, first.size)


def _disposition(mime: str, digest: str) -> str:
    kind = "inline" if _SHOWN.fullmatch(mime) or mime == "text/plain" else "attachment"
    return f'{kind}; filename="{digest[:16]}"'


def _safe_type(mime: str) -> str:
    """Return the type under which a content leaves: nothing that a browser would run."""
    if _SHOWN.fullmatch(mime):
        return mime
    return "text/plain; charset=utf-8" if mime.startswith("text/") else "application/octet-stream"


def _span(header: str | None, size: int) -> tuple[int, int] | None:
    """Return the first byte and the end of a range; None for all, and for several ranges."""
    found = _RANGE.fullmatch(header.strip()) if header else None
    if not found or not (found[1] or found[2]) or len(found[1]) > 18 or len(found[2]) > 18:
        return None
    if not found[1]:
        begin, end = max(0, size - int(found[2])), size
    else:
        begin, end = int(found[1]), min(size, int(found[2]) + 1) if found[2] else size
    if begin >= end:
        raise Problem("bad_request", f"the range {header} is outside of {size:,} bytes", 416)
    return begin, end


@dataclass(frozen=True)
class Form:
    """The form in which a page shows a content.

    Attributes:
        side: longest side of a picture in pixels; larger ones than the sandbox makes are not scaled up. None
            makes a clip of a part.
        begin, end: the part in seconds; of all, where both are None.
    """

    side: int | None
    begin: float | None = None
    end: float | None = None

    @staticmethod
    def of(side: int | None, span: str | None) -> Form:
        """Return the form that a client asks for.

        Args:
            span: ``seconds=5.5-7.5``; of other kinds, which have no time, the whole is shown.

        Raises:
            Problem: where it cannot be made.
        """
        side = None if side is None else min(side, PREVIEW_SIDE) if span is None else min(side, CLIP_SIDE)
        if span is None:
            return Form(side)
        try:
            begin, end = seconds_of(span)
        except SampleError as error:
            raise Problem("bad_request", error.message) from None
        return Form(side, begin, end)

    @property
    def is_whole(self) -> bool:
        return self.begin is None or self.end is None

    def check(self) -> None:
        """Check that it can be made.

        Raises:
            Problem: where it cannot.
        """
        if self.side is not None and not 16 <= self.side <= 1024:
            raise Problem("bad_request", f"preview is {self.side}; give 16 to 1024 pixels")
        if self.begin is None or self.end is None:
            return
        if not (0 <= self.begin < self.end <= _LONGEST_SECONDS):
            raise Problem("bad_request", "span is seconds=BEGIN-END, with the end after the beginning")


class Previews:
    """Previews by content, in memory: they go with the process, and with the content when it is forgotten."""

    def __init__(self, service: Service) -> None:
        self._service, self._most = service, service.limits.preview_bytes
        self._made: OrderedDict[tuple[str, Form], tuple[bytes, str]] = OrderedDict()
        self._bytes, self._lock = 0, Lock()
        # The sandbox has few children; more threads would only hold blobs in memory.
        self._makers = BoundedSemaphore(_PREVIEWERS)

    def response(self, digest: str, form: Form, known: str | None, byte_range: str | None = None) -> Response:
        """Return a picture, waveform, clip or the beginning of a text of a content.

        Args:
            known: header ``If-None-Match``.
            byte_range: header ``Range``, which players send.
        """
        form.check()
        self._require_remembered(digest)
        tag = f'"{digest}-{form.side}-{form.begin}-{form.end}"'
        headers = {**_MEDIA_HEADERS, "ETag": tag}
        with self._lock:
            found = self._made.get((digest, form))
            if found:
                self._made.move_to_end((digest, form))
        self._service.metrics.cache.labels("previews", "hit" if found else "miss").inc()
        if found and known == tag:
            return Response(None, 304, headers)
        body, mime = found or self._make(digest, form)
        return _respond_range(body, mime, headers, byte_range)

    def _require_remembered(self, digest: str) -> None:
        receipt = self._service.catalog.receipts.tombstones().get(digest)
        if receipt is None:
            return
        with self._lock:
            for key in [key for key in self._made if key[0] == digest]:
                self._bytes -= len(self._made.pop(key)[0])
        raise Problem("forgotten", f"content {digest[:16]} was forgotten (receipt {receipt})")

    def _make(self, digest: str, form: Form) -> tuple[bytes, str]:
        with self._makers:
            medium = _load(self._service, digest)
            made = (
                _encode(_preview(medium), form.side or PREVIEW_SIDE) if form.is_whole else _clip(medium, form)
            )
        with self._lock:
            self._made[digest, form] = made
            self._bytes += len(made[0])
            while self._bytes > self._most and self._made:
                self._bytes -= len(self._made.popitem(last=False)[1][0])
        return made


def warm_sandbox() -> None:
    """Start the children that make previews, so that no page waits for them.

    Raises:
        SampleError: where a library of a modality does not decode.
    """
    for modality in modalities().values():
        if healthy := modality.canary():
            map_in_sandbox(
                _LIMITS, Previewer(modality), [healthy] * _LIMITS.workers, [()] * _LIMITS.workers, modality
            )


def _preview(medium: Media) -> Preview:
    mime = media_type(medium)
    name = modality_of(mime)
    if name is None:
        raise Problem("unsupported_format", f"the content is {mime}, which no modality reads", 415)
    modality = get(name)
    if isinstance(medium, Path) and not modality.streams:
        if medium.stat().st_size > _MOST_PREVIEWED:
            raise Problem("request_too_large", "the content is too large for a preview", 422)
        medium = medium.read_bytes()
    (answer,) = map_in_sandbox(_LIMITS, Previewer(modality), [medium], [()], modality)
    found = read_preview(answer)
    if isinstance(found, SampleError):
        raise found
    return found


def _clip(medium: Media, form: Form) -> tuple[bytes, str]:
    """Return the frame in the middle of a part of a film, or the part as WebM."""
    mime = media_type(medium)
    name = modality_of(mime)
    if name not in ("audio", "video") or (form.side and name != "video"):
        raise Problem("unsupported_format", f"the content is {mime}, which has no such part", 415)
    if isinstance(medium, Path) and not get(name).streams:
        raise Problem("request_too_large", "the content is too large for a clip", 422)
    is_still = form.side is not None
    (answer,) = map_in_sandbox(
        _LIMITS, Clipper(name == "video", is_still), [medium], [(form.begin, form.end)], get(name)
    )
    made = read_made(answer, is_still)
    if isinstance(made, SampleError):
        raise made
    if isinstance(made, bytes):
        return made, "video/webm" if name == "video" else "audio/webm"
    return _jpeg(made, form.side or CLIP_SIDE), "image/jpeg"


def _encode(preview: Preview, side: int) -> tuple[bytes, str]:
    if preview.picture is not None:
        return _jpeg(np.ascontiguousarray(preview.picture), side * preview.frames), "image/jpeg"
    if preview.wave is not None:
        return _draw_wave(np.nan_to_num(preview.wave).clip(0, 1)), "image/png"
    return (preview.text or "")[:PREVIEW_CHARS].encode(), "text/plain; charset=utf-8"


def _jpeg(pixels: np.ndarray[Any, Any], longest: int) -> bytes:
    from PIL import Image

    picture, sink = Image.fromarray(pixels), io.BytesIO()
    picture.thumbnail((longest, longest))
    picture.save(sink, "JPEG", quality=78)
    return sink.getvalue()


def _draw_wave(wave: np.ndarray[Any, Any]) -> bytes:
    """Draw the peaks of a sound as bars about a middle line, gray, so that it is seen on light and dark."""
    from PIL import Image

    height, width = _WAVE_HEIGHT, 2 * len(wave)
    pixels = np.zeros((height, max(2, width), 4), np.uint8)
    middle = height // 2
    for i, peak in enumerate(wave):
        half = max(1, round(float(peak) * (middle - 2)))
        pixels[middle - half : middle + half, 2 * i] = (110, 125, 150, 255)
        pixels[middle - half : middle + half, 2 * i + 1] = (110, 125, 150, 140)
    sink = io.BytesIO()
    Image.fromarray(pixels).save(sink, "PNG")
    return sink.getvalue()
