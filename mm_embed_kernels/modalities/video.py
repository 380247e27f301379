"""Video: compare container and frames; measure brightness, stills and sound track; cut into scenes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from mm_embed_kernels.contracts import field
from mm_embed_kernels.errors import SampleError
from mm_embed_kernels.media import canaries
from mm_embed_kernels.media.cuts import cut_film
from mm_embed_kernels.media.film_reader import reader_libraries
from mm_embed_kernels.media.frames import Frames, facts_of, open_frames
from mm_embed_kernels.media.media_type import Media
from mm_embed_kernels.media.spans import span_of
from mm_embed_kernels.modalities.base import DECODING_SIGNALS, PREVIEW_SIDE, Modality, Preview, Segment
from mm_embed_kernels.similarity import frame_hashes
from mm_embed_kernels.similarity.frame_hashes import hash_frame, pack_frames

# Ten seconds are short enough to watch as a search result; longer scenes are cut into equal parts.
SEGMENT_SECONDS = 10.0
# A shorter flash belongs to the scene before it.
MIN_SCENE_SECONDS = 0.5
# One core decodes this many pixels within seconds (0.6 gigapixels/s): half a minute of full HD, six minutes
# at 640 x 360. In videos up to this size scene cuts are detected and any frame is measured. A longer one is
# cut into windows of equal length, and only key frames are measured, which decode without the frames before
# them.
SCANNED_PIXELS = 2_000_000_000
# Evenly spaced frames on which a probe measures its signals.
MEASURED_FRAMES = 32
# Frames to hash: two a second, or this many key frames of a longer video.
HASHES_PER_SECOND, HASHED_KEYS = 2.0, 256
_SCANS_PER_SECOND, _SCAN_SIZE = 5.0, (64, 48)
_CUT = 0.3
_GRID, _BITS = 4, 2
_PREVIEW_FRAMES = 3
# Defaults of FFmpeg's blackdetect and freezedetect.
_BLACK_LUMA, _BLACK_PIXELS, _STILL_CHANGE = 0.1 * 255, 0.98, 0.001 * 255
_LUMA = np.array([0.299, 0.587, 0.114])
_SPREAD = f"; measured on up to {MEASURED_FRAMES} evenly spaced frames"


class Video(Modality):
    """Moving pictures, with or without sound; a cover picture in a recording is none."""

    name = "video"
    embedder = "conse_frames"
    hub_embedder = "open_clip_frames:laion/CLIP-ViT-B-32-laion2B-s34B-b79K"
    streams = True
    # 7 and 4: frames by FFmpeg, unless decord is chosen.
    probe_version = "7"
    segment_version = "4"
    probe_seconds = 0.3
    segment_seconds = 0.3
    signals: ClassVar[list[pa.Field]] = [
        *DECODING_SIGNALS,
        field("codec", pa.string(), "video codec, by FFmpeg's name"),
        field("frame_rate", pa.float64(), "frames per second, on average", ge=0),
        field("frames", pa.int64(), "frames that are displayed, counted packet by packet", ge=1),
        field(
            "stated_frames",
            pa.int64(),
            "frames that the container states, less those that an edit list hides; null where it states none",
            ge=0,
        ),
        field("key_frames", pa.int64(), "frames that decode without another one", ge=0),
        field("bit_rate", pa.int64(), "bits per second of the whole file", ge=0),
        field(
            "audio_codec",
            pa.string(),
            "codec of the first sound track, by FFmpeg's name; null without a sound track",
        ),
        field("brightness", pa.float64(), "mean luma, 0 to 255" + _SPREAD, ge=0, le=255),
        field(
            "black_share",
            pa.float64(),
            "frames with 98% of the pixels darker than a tenth of white" + _SPREAD,
            ge=0,
            le=1,
        ),
        field(
            "frozen_share",
            pa.float64(),
            "measured frames that differ from the one before by less than a thousandth of white in the mean"
            + _SPREAD,
            ge=0,
            le=1,
        ),
        field(
            "frame_hashes",
            pa.binary(),
            "difference hashes of frames with their presentation times (see `frame_hashes.FRAME`)",
        ),
    ]

    packed: ClassVar[dict[str, Callable[[bytes], bool]]] = {"frame_hashes": frame_hashes.is_packed}

    @property
    def libraries(self) -> tuple[str, ...]:  # type: ignore[override]
        return (*reader_libraries(), "filetype", "ImageHash")

    def canary(self) -> bytes:
        return canaries.film()

    def claims(self, mime: str) -> bool:
        return mime.startswith("video/")

    def probe(self, data: Media) -> dict[str, Any]:
        return self._measure(data, whole=True)

    def probe_prefix(self, data: Media) -> dict[str, Any]:
        return self._measure(data, whole=False)

    def _measure(self, data: Media, whole: bool) -> dict[str, Any]:
        """Return the row of a video; unless it must be `whole`, of its readable beginning."""
        mime = self.require(data)
        facts = facts_of(data)
        if facts.cut and whole:
            raise SampleError(
                "truncated",
                f"the file is cut off inside its container, after {facts.frames:,} frames "
                f"({facts.duration:.2f} s)",
            )
        if facts.defect and whole:
            raise facts.defect
        with open_frames(data) as frames:
            # A phone held upright stores rotated frames: the size is that of the displayed frame.
            height, width, _ = frames[0].shape
            measured = measure_frames(frames, None if facts.pixels <= SCANNED_PIXELS else frames.keys)
            if frames.lost and whole:
                raise SampleError(
                    "decode_error",
                    f"the film is damaged: {frames.lost:,} of {facts.frames:,} frames cannot be decoded; "
                    "on_partial: keep_prefix keeps the others",
                )
            share = facts.read_share
            return {
                "mime": mime,
                "width": width,
                "height": height,
                "duration": round(frames.duration, 6),
                "decoder": frames.decoder,
                "read_share": None if share is None else round(share * frames.decoded_share, 6),
                "codec": facts.codec,
                "frame_rate": round(facts.frame_rate, 6),
                "frames": facts.frames,
                "stated_frames": facts.stated_frames,
                "key_frames": len(frames.keys),
                "bit_rate": facts.bit_rate,
                "audio_codec": facts.audio_codec,
                **measured,
            }

    def segment(self, data: Media) -> list[Segment]:
        self.require(data)
        facts = facts_of(data)
        cuts: list[float] = []
        duration = facts.duration
        if facts.pixels <= SCANNED_PIXELS or facts.times.starts is None:
            with open_frames(data, _SCAN_SIZE) as frames:
                duration = frames.duration
                if facts.pixels <= SCANNED_PIXELS:
                    cuts = scene_cuts(frames, facts.frame_rate)
        pixels = facts.frame_rate * facts.width * facts.height
        return [
            Segment(span_of(start, end), cost=max(1, round((end - start) * pixels)))
            for start, end in scenes(duration, cuts)
        ]

    def cut(self, data: Media, span: str) -> tuple[bytes, str]:
        return cut_film(data, span), "mp4"

    def preview(self, data: Media) -> Preview:
        """Return the middle frames of equal parts, from left to right."""
        with open_frames(data) as frames:
            height, width, _ = frames[0].shape
        scale = min(1.0, PREVIEW_SIDE / max(height, width))
        with open_frames(data, (max(1, round(width * scale)), max(1, round(height * scale)))) as frames:
            indices = [int(len(frames) * (i + 0.5) / _PREVIEW_FRAMES) for i in range(_PREVIEW_FRAMES)]
            return Preview(picture=np.concatenate(list(frames.read(indices)), axis=1), frames=_PREVIEW_FRAMES)


def measure_frames(frames: Frames, keys: np.ndarray[Any, Any] | None) -> dict[str, Any]:
    """Measure brightness (of `frames_to_measure`) and frame hashes (of `frames_to_hash`) in one pass.

    Args:
        frames: the open video.
        keys: indices of the key frames, where only these may be decoded.
    """
    bright, hashes = set(frames_to_measure(len(frames), keys)), set(frames_to_hash(frames.starts, keys))
    light, seconds, hashed = _Light(), [], []
    indices = sorted(bright | hashes)
    for index, frame in zip(indices, frames.read(indices), strict=True):
        # Of a large frame a tenth of the pixels is as accurate.
        step = max(1, min(frame.shape[:2]) // 240)
        small = frame[::step, ::step]
        if index in bright:
            light.add(small @ _LUMA)
        if index in hashes:
            seconds.append(float(frames.starts[index]))
            hashed.append(hash_frame(np.ascontiguousarray(small)))
    return {**light.signals(), "frame_hashes": pack_frames(seconds, hashed)}


class _Light:
    """Brightness and the shares of black and of frozen frames, accumulated frame by frame."""

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


def frames_to_hash(starts: np.ndarray[Any, Any], keys: np.ndarray[Any, Any] | None) -> list[int]:
    """Return the indices of two frames a second, or of evenly spaced `keys` where those are given; ascending.

    Args:
        starts: presentation time of each frame, seconds.
        keys: indices of the key frames, ascending, or None.
    """
    if keys is not None and len(keys):
        return [
            int(keys[index])
            for index in np.unique(
                np.linspace(0, len(keys) - 1, min(len(keys), HASHED_KEYS)).round().astype(np.int64)
            )
        ]
    # The first frame of each tick that has one. Ticks are not enumerated, since a container may place a frame
    # a million years ahead.
    ticks = np.floor((np.nan_to_num(starts) + 1e-6) * HASHES_PER_SECOND)
    return sorted(int(index) for index in np.unique(ticks, return_index=True)[1])


def frames_to_measure(count: int, keys: np.ndarray[Any, Any] | None) -> list[int]:
    """Return the indices of evenly spaced frames, ascending.

    Args:
        count: frames of the video.
        keys: indices of the key frames, ascending, where only these may be measured: the nearest ones are
            taken, which may be fewer.
    """
    even = np.unique(np.linspace(0, count - 1, min(count, MEASURED_FRAMES)).round().astype(np.int64))
    if keys is not None and len(keys):
        after = np.clip(np.searchsorted(keys, even), 0, len(keys) - 1)
        before = np.maximum(after - 1, 0)
        even = np.unique(
            np.where(abs(even - keys[before]) <= abs(keys[after] - even), keys[before], keys[after])
        )
    return [int(item) for item in even]


def scene_cuts(frames: Frames, frame_rate: float) -> list[float]:
    """Detect cuts: the seconds at which a new scene begins.

    Twin comparison (Zhang, Kankanhalli and Smoliar, "Automatic partitioning of full-motion video", 1993) with
    local color histograms: where frames a fifth of a second apart differ much, the cut is the largest
    difference between two neighbours, if that alone is large; a moving camera makes many small differences.
    Fades are not detected.
    """
    step = max(1, round(frame_rate / _SCANS_PER_SECOND))
    coarse = list(range(0, len(frames), step))
    cuts = []
    suspects = [coarse[i + 1] for i, change in enumerate(_changes(frames, coarse)) if change >= _CUT]
    for last in suspects:
        between = list(range(last - step, last + 1))
        changes = _changes(frames, between)
        largest = int(np.argmax(changes))
        if changes[largest] >= _CUT:
            cuts.append(float(frames.starts[between[largest + 1]]))
    return cuts


def _changes(frames: Frames, indices: Sequence[int]) -> list[float]:
    """Return the difference of each frame to the one before it in the list, 0 to 1."""
    return [
        float(np.abs(after - before).sum() / 2)
        for before, after in pairwise(map(_histogram, frames.read(indices)))
    ]


def _histogram(frame: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return the color histogram of each cell of a grid, as shares of the frame, float32 [cells * colors]."""
    height, width, _ = frame.shape
    coarse = (frame >> (8 - _BITS)).astype(np.int32)
    color = (((coarse[..., 0] << _BITS) | coarse[..., 1]) << _BITS) | coarse[..., 2]
    cell = (np.arange(height) * _GRID // height)[:, None] * _GRID + (np.arange(width) * _GRID // width)[
        None, :
    ]
    counts = np.bincount(((cell << 3 * _BITS) | color).reshape(-1), minlength=_GRID * _GRID << 3 * _BITS)
    return np.asarray(counts / (height * width), np.float32)


def scenes(duration: float, cuts: Sequence[float]) -> list[tuple[float, float]]:
    """Return start and end of each segment in seconds: the scenes between cuts, long ones in equal parts."""
    edges = [0.0]
    for cut in cuts:
        if cut - edges[-1] >= MIN_SCENE_SECONDS and duration - cut >= MIN_SCENE_SECONDS:
            edges.append(cut)
    segments = []
    for start, end in pairwise([*edges, duration]):
        parts = max(1, int(np.ceil((end - start) / SEGMENT_SECONDS - 1e-6)))
        bounds = [start + (end - start) * i / parts for i in range(parts)] + [end]
        segments += list(pairwise(bounds))
    return segments
