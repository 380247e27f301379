"""Video: its container held against its frames, described by light, stills and sound track, cut into scenes."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pyarrow as pa

from mm_embed_kernels.contracts import field
from mm_embed_kernels.errors import SampleError
from mm_embed_kernels.media.media_type import Media
from mm_embed_kernels.media.spans import span_of
from mm_embed_kernels.modalities.base import PREVIEW_SIDE, READING, Modality, Preview, Segment
from mm_embed_kernels.similarity.frame_hashes import hashed, packed

if TYPE_CHECKING:
    from mm_embed_kernels.media.video import Frames

# A shot of ten seconds is an answer that a person looks at; longer ones are cut into equal parts.
SEGMENT_SECONDS = 10.0
# What flashes up for less than this belongs to the scene before it.
MIN_SCENE_SECONDS = 0.5
# What one core decodes within seconds (0.6 gigapixels/s): half a minute of full HD, six minutes at 640 x 360. Scenes are looked
# for in videos up to this, and frames measured wherever they lie; a longer one is cut into windows of equal length, and its key
# frames are measured, which are decoded without those before them.
SCANNED_PIXELS = 2_000_000_000
# Frames on which a probe's signals are measured, spread evenly.
MEASURED_FRAMES = 32
# Frames that are hashed: two a second, or of a longer video these many of its key frames.
HASHES_PER_SECOND, HASHED_KEYS = 2.0, 256
_SCANS_PER_SECOND, _SCAN_SIZE = 5.0, (64, 48)
_CUT = 0.3
_GRID, _BITS = 4, 2
_PREVIEW_FRAMES = 3
# FFmpeg's blackdetect and freezedetect, by their defaults.
_BLACK_LUMA, _BLACK_PIXELS, _STILL_CHANGE = 0.1 * 255, 0.98, 0.001 * 255
_LUMA = np.array([0.299, 0.587, 0.114])
_SPREAD = f"; measured on up to {MEASURED_FRAMES} evenly spaced frames"


class Video(Modality):
    """Moving pictures, with or without sound (a cover picture in a recording is none)."""

    name = "video"
    embedder = "conse_frames"
    hub_embedder = "open_clip_frames:laion/CLIP-ViT-B-32-laion2B-s34B-b79K"
    libraries = ("av", "decord2", "filetype", "ImageHash")
    streams = True
    probe_version = "4"
    probe_seconds = 0.3
    segment_seconds = 0.3
    signals: ClassVar[list[pa.Field]] = [
        *READING,
        field("codec", pa.string(), "FFmpeg's name of the pictures' coding"),
        field("frame_rate", pa.float64(), "frames per second, on average", ge=0),
        field("frames", pa.int64(), "frames that are there, counted packet by packet", ge=1),
        field(
            "stated_frames", pa.int64(), "frames that the container speaks of; null where it does not", ge=0
        ),
        field("key_frames", pa.int64(), "frames that can be decoded without another", ge=0),
        field("bit_rate", pa.int64(), "bits per second of the whole file", ge=0),
        field(
            "audio_codec",
            pa.string(),
            "FFmpeg's name of the first sound track's coding; null where there is no sound",
        ),
        field("brightness", pa.float64(), "mean luma, 0 to 255" + _SPREAD, ge=0, le=255),
        field(
            "black_share",
            pa.float64(),
            "frames of which 98% is darker than a tenth of white" + _SPREAD,
            ge=0,
            le=1,
        ),
        field(
            "frozen_share",
            pa.float64(),
            "neighbours that differ by less than a thousandth of white in the mean" + _SPREAD,
            ge=0,
            le=1,
        ),
        field(
            "frame_hashes",
            pa.binary(),
            "difference hashes of frames, and when they are shown (see `frame_hashes.FRAME`)",
        ),
    ]

    def claims(self, mime: str) -> bool:
        return mime.startswith("video/")

    def probe(self, data: Media) -> dict[str, Any]:
        return self._measured(data, whole=True)

    def probe_prefix(self, data: Media) -> dict[str, Any]:
        return self._measured(data, whole=False)

    def _measured(self, data: Media, whole: bool) -> dict[str, Any]:
        from mm_embed_kernels.media.video import describe, open_frames

        mime = self.require(data)
        facts = describe(data)
        if facts.cut and whole:
            raise SampleError(
                "truncated",
                f"the file is cut off inside its container, after {facts.frames:,} frames ({facts.duration:.2f} s)",
            )
        with open_frames(data) as frames:
            # A phone held upright stores its pictures lying: what counts is what is shown.
            height, width, _ = frames[0].shape
            return {
                "mime": mime,
                "width": width,
                "height": height,
                "duration": round(facts.duration, 6),
                "decoder": frames.decoder,
                "read_share": facts.read_share,
                "codec": facts.codec,
                "frame_rate": round(facts.frame_rate, 6),
                "frames": facts.frames,
                "stated_frames": facts.stated_frames,
                "key_frames": len(frames.keys),
                "bit_rate": facts.bit_rate,
                "audio_codec": facts.audio_codec,
                **looked_at(frames, None if facts.pixels <= SCANNED_PIXELS else frames.keys),
            }

    def segment(self, data: Media) -> list[Segment]:
        from mm_embed_kernels.media.video import describe, open_frames

        self.require(data)
        facts = describe(data)
        cuts: list[float] = []
        if facts.pixels <= SCANNED_PIXELS:
            with open_frames(data, _SCAN_SIZE) as frames:
                cuts = scene_cuts(frames, facts.frame_rate)
        pixels = facts.frame_rate * facts.width * facts.height
        return [
            Segment(span_of(start, end), cost=max(1, round((end - start) * pixels)))
            for start, end in scenes(facts.duration, cuts)
        ]

    def preview(self, data: Media) -> Preview:
        """Frames from the middle of equal parts, side by side."""
        from mm_embed_kernels.media.video import open_frames

        with open_frames(data) as frames:
            height, width, _ = frames[0].shape
        scale = min(1.0, PREVIEW_SIDE / max(height, width))
        with open_frames(data, (max(1, round(width * scale)), max(1, round(height * scale)))) as frames:
            places = [int(len(frames) * (i + 0.5) / _PREVIEW_FRAMES) for i in range(_PREVIEW_FRAMES)]
            return Preview(picture=np.concatenate(list(frames.read(places)), axis=1), frames=_PREVIEW_FRAMES)


def looked_at(frames: Frames, keys: np.ndarray[Any, Any] | None) -> dict[str, Any]:
    """What one pass over the frames measures: light (see `measured`), and the hashes of frames (see `hashed_frames`).

    Args:
        keys: the key frames, where only these are to be decoded.
    """
    bright, hashes = set(measured(len(frames), keys)), set(hashed_frames(frames.starts, keys))
    light, seconds, found = _Light(), [], []
    places = sorted(bright | hashes)
    for place, frame in zip(places, frames.read(places), strict=True):
        # A tenth of the pixels of a large frame tells as much.
        step = max(1, min(frame.shape[:2]) // 240)
        small = frame[::step, ::step]
        if place in bright:
            light.add(small @ _LUMA)
        if place in hashes:
            seconds.append(float(frames.starts[place]))
            found.append(hashed(np.ascontiguousarray(small)))
    return {**light.signals(), "frame_hashes": packed(seconds, found)}


class _Light:
    """Brightness, and the shares of black and of frozen frames."""

    def __init__(self) -> None:
        self._lumas: list[float] = []
        self._black: list[bool] = []
        self._change: list[float] = []
        self._before: np.ndarray[Any, Any] | None = None

    def add(self, luma: np.ndarray[Any, Any]) -> None:
        self._lumas.append(float(luma.mean()))
        self._black.append(float((luma < _BLACK_LUMA).mean()) >= _BLACK_PIXELS)
        if self._before is not None and self._before.shape == luma.shape:
            self._change.append(float(np.abs(luma - self._before).mean()))
        self._before = luma

    def signals(self) -> dict[str, float]:
        return {
            "brightness": float(np.mean(self._lumas)),
            "black_share": float(np.mean(self._black)),
            "frozen_share": float(np.mean([item < _STILL_CHANGE for item in self._change]))
            if self._change
            else 0.0,
        }


def hashed_frames(starts: np.ndarray[Any, Any], keys: np.ndarray[Any, Any] | None) -> list[int]:
    """Two frames a second, ascending; where key frames are given, evenly spaced ones of those."""
    if keys is not None and len(keys):
        return [
            int(keys[place])
            for place in np.unique(
                np.linspace(0, len(keys) - 1, min(len(keys), HASHED_KEYS)).round().astype(np.int64)
            )
        ]
    # The first frame of each tick that has one; never a list of ticks, since a container may say that a frame is shown in a million years.
    ticks = np.floor((np.nan_to_num(starts) + 1e-6) * HASHES_PER_SECOND)
    return sorted(int(place) for place in np.unique(ticks, return_index=True)[1])


def measured(count: int, keys: np.ndarray[Any, Any] | None) -> list[int]:
    """Evenly spaced frames, ascending; where key frames are given, the nearest of those, which may be fewer."""
    wanted = np.unique(np.linspace(0, count - 1, min(count, MEASURED_FRAMES)).round().astype(np.int64))
    if keys is not None and len(keys):
        after = np.clip(np.searchsorted(keys, wanted), 0, len(keys) - 1)
        before = np.maximum(after - 1, 0)
        wanted = np.unique(
            np.where(abs(wanted - keys[before]) <= abs(keys[after] - wanted), keys[before], keys[after])
        )
    return [int(item) for item in wanted]


def scene_cuts(frames: Frames, frame_rate: float) -> list[float]:
    """Seconds at which another scene begins.

    Twin comparison (Zhang, Kankanhalli and Smoliar, "Automatic partitioning of full-motion video", 1993) with local color histograms: where
    frames a fifth of a second apart differ much, the cut is the largest step between two neighbours, if that alone is
    large; a camera that moves makes many small ones. Fades are not found.
    """
    step = max(1, round(frame_rate / _SCANS_PER_SECOND))
    coarse = list(range(0, len(frames), step))
    found = []
    suspects = [coarse[i + 1] for i, change in enumerate(_changes(frames, coarse)) if change >= _CUT]
    for last in suspects:
        between = list(range(last - step, last + 1))
        changes = _changes(frames, between)
        place = int(np.argmax(changes))
        if changes[place] >= _CUT:
            found.append(float(frames.starts[between[place + 1]]))
    return found


def _changes(frames: Frames, indices: Sequence[int]) -> list[float]:
    """How much each frame differs from the one before it in the list, 0 to 1."""
    return [
        float(np.abs(after - before).sum() / 2)
        for before, after in pairwise(map(_histogram, frames.read(indices)))
    ]


def _histogram(frame: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Colors of each cell of a grid, as shares of the frame."""
    height, width, _ = frame.shape
    coarse = (frame >> (8 - _BITS)).astype(np.int32)
    color = (((coarse[..., 0] << _BITS) | coarse[..., 1]) << _BITS) | coarse[..., 2]
    cell = (np.arange(height) * _GRID // height)[:, None] * _GRID + (np.arange(width) * _GRID // width)[
        None, :
    ]
    counts = np.bincount(((cell << 3 * _BITS) | color).reshape(-1), minlength=_GRID * _GRID << 3 * _BITS)
    return np.asarray(counts / (height * width), np.float32)


def scenes(duration: float, cuts: Sequence[float]) -> list[tuple[float, float]]:
    """Start and end of each segment, in seconds: the scenes between cuts, long ones in equal parts."""
    edges = [0.0]
    for cut in cuts:
        if cut - edges[-1] >= MIN_SCENE_SECONDS and duration - cut >= MIN_SCENE_SECONDS:
            edges.append(cut)
    found = []
    for start, end in pairwise([*edges, duration]):
        parts = max(1, int(np.ceil((end - start) / SEGMENT_SECONDS - 1e-6)))
        bounds = [start + (end - start) * i / parts for i in range(parts)] + [end]
        found += list(pairwise(bounds))
    return found
