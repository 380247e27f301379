"""Compare readers of films, decord, decord where it is checked, and FFmpeg: right frames, and CPU seconds.

    python -m benchmarks.film_readers [--size 640x360] [--pairs 3] [--film FILE ...]

Each frame of the films that are made here shows its own number, so that the right frame at a second is known
without a second decoder. `decord` is its reader alone, asked for the frame whose time is the last one up to
the second; `checked` is what ``MM_FILM_READER=decord`` reads; `ffmpeg` is the default. CPU seconds are those
of a probe and a segmentation together, without the sandbox, the least of `--pairs` runs in turn. Of films
that are named (`--film`) nothing is known: only CPU seconds are printed.
"""

from __future__ import annotations

import argparse
import io
import os
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

RATE, NUMBERS = 25, 250
# Container, codec and options of FFmpeg; the times of frames, in ticks of 1/100 s.
FILMS: dict[str, tuple[str, str, dict[str, str]]] = {
    "mp4, no B-frames": ("mp4", "libx264", {"bf": "0"}),
    "mp4, B-frames": ("mp4", "libx264", {"bf": "2"}),
    "mp4, variable rate": ("mp4", "libx264", {"bf": "2"}),
    "mp4, turned": ("mp4", "libx264", {"bf": "2"}),
    "mp4, cut by an edit list": ("mp4", "libx264", {"bf": "2"}),
    "mp4, open groups": ("mp4", "libx264", {"x264-params": "open-gop=1:bframes=3:b-adapt=0"}),
    "mp4, damaged": ("mp4", "libx264", {"bf": "2"}),
    "mkv, B-frames": ("matroska", "libx264", {"bf": "2"}),
    "avi, MPEG-4, B-frames": ("avi", "mpeg4", {"bf": "2"}),
    "transport stream, B-frames": ("mpegts", "libx264", {"bf": "2"}),
    "program stream, MPEG-2": ("mpeg", "mpeg2video", {"bf": "2"}),
    "program stream, MPEG-1": ("mpeg", "mpeg1video", {"bf": "2"}),
}
# Frames of the edit list's film that are shown from, and the bytes that damage overwrites.
CUT, HOLE = 30, 1_500


def picture(number: int, width: int, height: int) -> Any:
    """Return a frame of 4 x 2 cells, the bits of its number, uint8 [height, width, 3]."""
    bits = np.array([number >> bit & 1 for bit in range(8)], np.uint8).reshape(2, 4)
    cells = np.kron(25 + 200 * bits, np.ones((height // 2, width // 4), np.uint8))
    return np.repeat(cells[..., None], 3, axis=2)


def number_of(frame: Any, turned: bool = False) -> int:
    """Return the number that a frame shows."""
    luma = np.asarray(frame, np.float32).mean(axis=2)
    luma = np.rot90(luma, 1) if turned else luma
    height, width = luma.shape
    bits = [luma[height // 4 + height // 2 * (i // 4), width // 8 + width // 4 * (i % 4)] for i in range(8)]
    return sum(1 << bit for bit, level in enumerate(bits) if level > 128)


def make(name: str, size: tuple[int, int]) -> tuple[bytes, np.ndarray[Any, Any], int]:
    """Return a film, the seconds at which its frames appear, and the number of the first that is shown."""
    import av

    container, codec, options = FILMS[name]
    ticks = np.arange(NUMBERS) * 4
    if "variable" in name:
        ticks = np.cumsum(np.random.default_rng(0).integers(2, 11, NUMBERS))
        ticks -= ticks[0]
    stream = io.BytesIO()
    with av.open(stream, "w", format=container) as out:
        track: Any = out.add_stream(codec, rate=RATE)
        track.width, track.height, track.pix_fmt, track.gop_size = *size, "yuv420p", 48
        if "variable" in name:
            track.codec_context.time_base = Fraction(1, 100)
        if codec == "libx264":
            options = {"crf": "18", "preset": "veryfast", **options}
        track.options = options
        for number in range(NUMBERS):
            frame = av.VideoFrame.from_ndarray(picture(number, *size))
            frame.pts = int(ticks[number]) if "variable" in name else number
            out.mux(track.encode(frame))
        out.mux(track.encode())
    data, first = bytearray(stream.getvalue()), 0
    if "turned" in name:  # the display matrix of a phone that is held upright (ISO/IEC 14496-12, `tkhd`)
        at = data.index(b"tkhd") + 44
        data[at : at + 20] = b"".join(
            term.to_bytes(4, "big", signed=True) for term in (0, 1 << 16, 0, -1 << 16, 0)
        )
    if "edit list" in name:
        at = data.index(b"mdhd") + 16
        scale = int.from_bytes(data[at : at + 4], "big") // RATE
        at = data.index(b"elst") + 12
        shown, begin = (int.from_bytes(data[at + i : at + i + 4], "big") for i in (0, 4))
        first = CUT
        data[at : at + 4] = (shown - 1000 * CUT // RATE).to_bytes(4, "big")
        data[at + 4 : at + 8] = (begin + CUT * scale).to_bytes(4, "big")
    if "damaged" in name:
        data[len(data) // 2 : len(data) // 2 + HOLE] = np.random.default_rng(0).bytes(HOLE)
    return bytes(data), ticks[first:] / 100 - ticks[first] / 100, first


def by_decord(data: bytes, seconds: np.ndarray[Any, Any]) -> list[Any]:
    """Return the frames at seconds, by decord's reader alone."""
    from mm_embed_kernels.media.frames import load_decord

    decord = load_decord()
    reader = decord.VideoReader(io.BytesIO(data), decord.cpu(0), num_threads=1)
    stamps = np.asarray(reader.get_frame_timestamp(range(len(reader))), np.float64)[:, 0]
    at = np.clip(np.searchsorted(stamps - stamps[0], seconds, "right") - 1, 0, len(reader) - 1)
    return [reader[int(index)].asnumpy() for index in at]


def by_setting(reader: str) -> Callable[[bytes, np.ndarray[Any, Any]], list[Any]]:
    """Return a function that reads the frames at seconds as the platform does under a setting."""

    def read(data: bytes, seconds: np.ndarray[Any, Any]) -> list[Any]:
        from mm_embed_kernels.media.frames import open_frames

        os.environ["MM_FILM_READER"] = reader
        with open_frames(data) as frames:
            return list(frames.read([frames.at(second) for second in seconds]))

    return read


READERS = {"decord": by_decord, "checked": by_setting("decord"), "ffmpeg": by_setting("ffmpeg")}


def share_right(name: str, reader: str, size: tuple[int, int]) -> str:
    """Return the share of the frames, each in its middle, that are the right ones, or the error."""
    data, starts, first = make(name, size)
    ends = np.append(starts[1:], starts[-1] + 1 / RATE)
    try:
        frames = READERS[reader](data, (starts + ends) / 2)
    except Exception as error:  # noqa: BLE001 - of three libraries; it is the result
        return type(error).__name__
    found = [number_of(frame, "turned" in name) for frame in frames]
    right = sum(number == first + i for i, number in enumerate(found))
    return f"{100 * right / len(starts):.1f}%"


def cpu_seconds(data: bytes, reader: str) -> float:
    """Return the CPU seconds of a probe and a segmentation."""
    from mm_embed_kernels.media import frames
    from mm_embed_kernels.modalities import get

    os.environ["MM_FILM_READER"] = reader
    began = time.process_time()
    for work in (get("video").probe_prefix, get("video").segment):
        frames._films.clear()
        frames._open.clear()
        work(data)
    return time.process_time() - began


def least(data: bytes, pairs: int) -> str:
    """Return the least CPU seconds of `checked` and of `ffmpeg`, and their ratio."""
    spent: dict[str, list[float]] = {"decord": [], "ffmpeg": []}
    for _ in range(pairs):
        for reader, times in spent.items():
            times.append(cpu_seconds(data, reader))
    checked, ffmpeg = min(spent["decord"]), min(spent["ffmpeg"])
    return f"{checked:8.2f} s {ffmpeg:8.2f} s {ffmpeg / checked:8.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", default="640x360")
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--film", type=Path, nargs="*", default=[])
    options = parser.parse_args()
    width, height = (int(side) for side in options.size.split("x"))
    print(f"{'film':32}{'decord':>12}{'checked':>12}{'ffmpeg':>12}{'checked':>12}{'ffmpeg':>11}{'ratio':>9}")
    for name in FILMS:
        shares = [share_right(name, reader, (width, height)) for reader in READERS]
        print(
            f"{name:32}{shares[0]:>12}{shares[1]:>12}{shares[2]:>12}",
            least(make(name, (width, height))[0], options.pairs),
            flush=True,
        )
    for path in options.film:
        print(f"{path.name:68}", least(path.read_bytes(), options.pairs), flush=True)


if __name__ == "__main__":
    main()
