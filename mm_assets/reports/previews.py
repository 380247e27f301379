"""Previews of blobs, made in the sandbox, as a page shows them."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mm_embed_kernels import sql
from mm_embed_kernels.errors import SampleError
from mm_embed_kernels.kernels.blob_stage import map_in_sandbox
from mm_embed_kernels.kernels.preview import Previewer, read_preview
from mm_embed_kernels.modalities import Preview, get
from mm_embed_kernels.modalities.base import PREVIEW_CHARS, PREVIEW_POINTS
from mm_embed_kernels.sandbox.sandbox import Limits, call_guarded
from mm_resources.blobs.blob_store import BlobStore
from mm_resources.catalog import Catalog
from mm_resources.cell import Cell
from mm_resources.storage.store import LARGE_BYTES

# Blobs in memory at a time.
_BATCH = 8
# A blob above this size is previewed only where its modality reads streams.
_MAX_BYTES = LARGE_BYTES * 8


@dataclass(frozen=True)
class BlobPreview:
    """The preview of a blob; one of `picture`, `wave`, `text` and `fault` is set.

    Attributes:
        picture: a JPEG as a data URI.
        frames: pictures that stand side by side in `picture`.
        wave: peak amplitudes of a waveform, 0 to 1; see `mm_embed_kernels.modalities.Preview`.
        fault: the reason why there is no preview.
    """

    picture: str = ""
    frames: int = 1
    wave: tuple[float, ...] = ()
    text: str = ""
    fault: str = ""


MISSING = BlobPreview(fault="its blob is not in the store")


def preview_blobs(
    catalog: Catalog, cell: Cell, hashes: Sequence[str], limits: Limits
) -> dict[str, BlobPreview]:
    """Preview blobs of a cell, by content hash; without those that its table of blobs lacks."""
    blobs, modality = catalog.blobs, get(cell.modality)
    previews: dict[str, BlobPreview] = {}
    for start in range(0, len(hashes), _BATCH):
        batch = hashes[start : start + _BATCH]
        where = f"content_hash IN ({sql.literals(batch)})"
        columns = ["content_hash", "path", "offset", "size"]
        locations = catalog.tables.read("content_blobs", cell, columns, where).read_all().to_pylist()
        loaded = [
            call_guarded(_load, (blobs, modality.streams, *location.values())) for location in locations
        ]
        answers = map_in_sandbox(limits, Previewer(modality), loaded, [()] * len(loaded), modality)
        for location, answer in zip(locations, answers, strict=True):
            previews[location["content_hash"]] = _check_preview(read_preview(answer))
    return previews


def _load(blobs: BlobStore, streams: bool, content_hash: str, path: str, offset: int, size: int) -> Any:
    if size > _MAX_BYTES and not streams:
        raise SampleError("too_large", f"{size / 1e6:,.0f} MB are too much for a preview")
    return (blobs.media if streams else blobs.read)(content_hash, path, offset, size)


def _check_preview(outcome: Preview | SampleError) -> BlobPreview:
    """Convert a preview, checking types and sizes: a sandboxed decoder is not trusted."""
    if isinstance(outcome, SampleError):
        return BlobPreview(fault=outcome.message[:PREVIEW_CHARS])
    text = "" if outcome.text is None else str(outcome.text)[:PREVIEW_CHARS]
    wave: tuple[float, ...] = ()
    if outcome.wave is not None:
        peaks = np.nan_to_num(np.asarray(outcome.wave, np.float32)[:PREVIEW_POINTS]).clip(0, 1)
        wave = tuple(float(value) for value in peaks)
    if outcome.picture is None:
        return BlobPreview(wave=wave, text=text)
    return BlobPreview(_jpeg(np.asarray(outcome.picture)), outcome.frames, wave, text)


def _jpeg(pixels: np.ndarray[Any, Any]) -> str:
    """Encode pixels, uint8 [height, width, 3], as a JPEG data URI."""
    from PIL import Image

    sink = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(sink, "JPEG", quality=72)
    return f"data:image/jpeg;base64,{base64.b64encode(sink.getvalue()).decode()}"
