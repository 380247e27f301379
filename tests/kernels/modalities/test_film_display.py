"""Films as a player shows them: edit lists, display matrix, shape of pixels, frames without times, damage.

Each frame shows its own number in black and white, so that a wrong one is told. Right values are counted by hand
from what is encoded; those of the files in `tests/kernels/films` are by ffprobe.
"""

from __future__ import annotations

import io
import random
import struct
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mm_embed_kernels.embedders import create
from mm_embed_kernels.errors import SampleError, UserError
from mm_embed_kernels.media.film_times import frame_times
from mm_embed_kernels.media.frames import load_decord, open_frames, read_at
from mm_embed_kernels.modalities import get
from mm_embed_kernels.sandbox.sandbox import Limits, Sandbox
from mm_resources.settings import Settings

VIDEO = get("video")
FILES = Path(__file__).parent.parent / "films"
WIDTH, HEIGHT, RATE = 160, 96, 25
CELL = 40, 48
NUMBERS = 60


def numbered(number: int) -> Any:
    """A frame of 4 x 2 cells, the bits of its number."""
    bits = np.array([number >> bit & 1 for bit in range(8)], np.uint8).reshape(2, 4)
    cells = np.kron(25 + 200 * bits, np.ones((CELL[1], CELL[0]), np.uint8))
    return np.repeat(cells[..., None], 3, axis=2)


def number_of(frame: Any) -> int:
    luma = np.asarray(frame, int).mean(axis=2)
    height, width = luma.shape
    bits = [luma[height // 4 + height // 2 * (i // 4), width // 8 + width // 4 * (i % 4)] for i in range(8)]
    return sum(1 << bit for bit, level in enumerate(bits) if level > 128)


def film(
    container: str,
    codec: str,
    numbers: Any = range(NUMBERS),
    aspect: Fraction | None = None,
    **options: str,
) -> bytes:
    """Encode numbered frames by FFmpeg; groups of 12 pictures."""
    import av

    stream = io.BytesIO()
    with av.open(stream, "w", format=container) as out:
        track: Any = out.add_stream(codec, rate=RATE)
        track.width, track.height, track.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        track.gop_size = 12
        if aspect:
            track.codec_context.sample_aspect_ratio = aspect
        track.options = {
            "bf": "2",
            **({"crf": "18"} if codec.startswith("libx26") else {"q:v": "3"}),
            **options,
        }
        for time, number in enumerate(numbers):
            frame = av.VideoFrame.from_ndarray(numbered(number))
            frame.pts = time
            out.mux(track.encode(frame))
        out.mux(track.encode())
    return stream.getvalue()


FILMS: dict[str, tuple[str, str, dict[str, str]]] = {
    "program stream, MPEG-2": ("mpeg", "mpeg2video", {}),
    "program stream, MPEG-1": ("mpeg", "mpeg1video", {}),
    "vob": ("vob", "mpeg2video", {}),
    "transport stream": ("mpegts", "libx264", {}),
    "avi, H.264": ("avi", "libx264", {}),
    "avi, MPEG-4": ("avi", "mpeg4", {}),
    "asf, H.264": ("asf", "libx264", {}),
    "asf, no B-frames": ("asf", "wmv2", {"bf": "0"}),
    "raw H.264": ("h264", "libx264", {}),
    "raw MPEG-1": ("mpeg1video", "mpeg1video", {}),
    "raw MPEG-2": ("mpeg2video", "mpeg2video", {}),
    "raw MPEG-4": ("m4v", "mpeg4", {}),
    "open groups": ("mp4", "libx264", {"x264-params": "open-gop=1:bframes=3:b-adapt=0"}),
    "open groups, mkv": ("matroska", "libx264", {"x264-params": "open-gop=1:bframes=3:b-adapt=0"}),
    "mxf": ("mxf", "mpeg2video", {}),
    "mp4": ("mp4", "libx264", {}),
    "mkv": ("matroska", "libx264", {}),
    "flv": ("flv", "libx264", {}),
    "flv, no B-frames": ("flv", "libx264", {"bf": "0"}),
}


@pytest.mark.parametrize("reader", ["ffmpeg", "decord"])
@pytest.mark.parametrize("name", FILMS)
def test_each_frame_is_found_at_its_time(name: str, reader: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In order, and from any place to any other."""
    monkeypatch.setenv("MM_FILM_READER", reader)
    container, codec, options = FILMS[name]
    data = film(container, codec, **options)
    with open_frames(data) as frames:
        assert len(frames) == NUMBERS
        np.testing.assert_allclose(frames.starts, np.arange(NUMBERS) / RATE, atol=0.002)
        assert [number_of(frame) for frame in frames.read(range(NUMBERS))] == list(range(NUMBERS))
        for index in random.Random(0).sample(range(NUMBERS), 10):
            assert number_of(frames[index]) == index
        plain = name in ("mp4", "mkv", "flv, no B-frames")
        assert frames.decoder == ("decord" if reader == "decord" and plain else "ffmpeg")
        assert frames.duration == pytest.approx(NUMBERS / RATE, abs=0.01)
    row = VIDEO.probe(data)
    assert (row["width"], row["height"], row["frames"], row["read_share"]) == (WIDTH, HEIGHT, NUMBERS, 1)
    assert row["frozen_share"] == 0


@pytest.mark.parametrize("name", FILMS)
def test_segments_show_different_frames_where_the_film_does(name: str) -> None:
    container, codec, options = FILMS[name]
    data = film(container, codec, range(30), **options)
    embedder = create("conse_frames")
    for span, among in (("seconds=0.000-0.600", range(1, 15)), ("seconds=0.600-1.200", range(16, 30))):
        shown = embedder.decode(data, span)
        assert len({frame.tobytes() for frame in shown}) == 4, span
        start, end = (float(item) for item in span.partition("=")[2].split("-"))
        seconds = [start + (end - start) * (i + 0.5) / 4 for i in range(4)]
        numbers = [number_of(frame) for frame in read_at(data, seconds)]
        assert numbers == [int(second * RATE + 1e-6) for second in seconds]
        assert set(numbers) <= set(among)


def test_a_decoder_that_repeats_one_frame_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MM_FILM_READER", "decord")
    reader = load_decord().VideoReader
    monkeypatch.setattr(reader, "get_batch", lambda self, _, real=reader.get_batch: real(self, [0]))
    data = film("mp4", "libx264")
    assert [number_of(frame) for frame in read_at(data, [0.2, 1.0, 2.0])] == [5, 25, 50]


def test_another_reader_is_another_result(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of films alone: pictures keep theirs. Children of the sandbox are told of it."""

    def fingerprints() -> dict[str, str]:
        image = get("image")
        return {
            "probe": get("video").fingerprint("probe"),
            "segment": get("video").fingerprint("segment"),
            "embed": create("conse_frames").fingerprint,
            "picture": create("conse").fingerprint,
            "picture's probe": image.fingerprint("probe"),
        }

    default = fingerprints()
    monkeypatch.setenv("MM_FILM_READER", "ffmpeg")
    assert fingerprints() == default
    monkeypatch.setenv("MM_FILM_READER", "decord")
    changed = {name for name, value in fingerprints().items() if value != default[name]}
    assert changed == {"probe", "segment", "embed"}
    assert Settings.from_environment().exports()["MM_FILM_READER"] == "decord"
    sandbox = Sandbox(Limits())
    try:
        (row,) = sandbox.map(get("video").probe, [(film("mp4", "libx264"),)])
    finally:
        sandbox.close()
    assert row["decoder"] == "decord"
    monkeypatch.setenv("MM_FILM_READER", "vlc")
    with pytest.raises(UserError, match="MM_FILM_READER 'vlc' is not known; there are: ffmpeg, decord"):
        fingerprints()


def test_a_film_that_stands_still() -> None:
    assert [number_of(frame) for frame in read_at(film("mp4", "libx264", [7] * 30), [0.2, 1.0])] == [7, 7]


# -- what an edit list shows


def box(data: bytes, *path: bytes) -> int:
    """Return the place of a box inside boxes."""
    place = 0
    for kind in path:
        place = data.index(kind, place)
    return place - 4


def with_edits(data: bytes, edits: list[tuple[int, int]]) -> bytes:
    """Replace the edit list of an mp4's only track: (duration in ms, first tick or -1) each."""
    place = box(data, b"trak", b"edts")
    length = int.from_bytes(data[place : place + 4], "big")
    entries = b"".join(struct.pack(">Iihh", duration, first, 1, 0) for duration, first in edits)
    elst = struct.pack(">I4sII", 16 + len(entries), b"elst", 0, len(edits)) + entries
    edts = struct.pack(">I4s", 8 + len(elst), b"edts") + elst
    grown = len(edts) - length
    changed = bytearray(data[:place] + edts + data[place + length :])
    for kind in (b"trak", b"moov"):
        start = changed.index(kind) - 4
        changed[start : start + 4] = (int.from_bytes(changed[start : start + 4], "big") + grown).to_bytes(
            4, "big"
        )
    return bytes(changed)


@pytest.mark.parametrize(
    ("edits", "shown"),
    [
        ([(1_000, 20)], range(20, 45)),  # from the middle of a group on
        ([(800, 12)], range(12, 32)),
        ([(500, -1), (1_000, 20)], range(20, 45)),  # half a second of nothing first
        ([(2_400, 0)], range(60)),
    ],
)
def test_an_edit_list(edits: list[tuple[int, int]], shown: range) -> None:
    plain = film("mp4", "libx264")
    place = box(plain, b"mdhd")
    ticks = int.from_bytes(plain[place + 20 : place + 24], "big") // RATE
    place = box(plain, b"elst")
    offset = int.from_bytes(plain[place + 20 : place + 24], "big")  # what B-frames delay
    table = [(duration, first if first < 0 else offset + first * ticks) for duration, first in edits]
    data = with_edits(plain, table)
    with open_frames(data) as frames:
        assert [number_of(frame) for frame in frames.read(range(len(frames)))] == list(shown)
        np.testing.assert_allclose(frames.starts, np.arange(len(shown)) / RATE, atol=0.002)
        assert number_of(frames[len(shown) // 2]) == shown[len(shown) // 2]
    row = VIDEO.probe(data)
    assert (row["frames"], row["duration"]) == (len(shown), pytest.approx(len(shown) / RATE, abs=0.01))


def test_a_film_that_was_cut_without_encoding() -> None:
    """`ffmpeg -ss -c copy`; ffprobe shows 35 frames in 1.4 s of the 50 in the file."""
    row = VIDEO.probe((FILES / "cut-editlist.mp4").read_bytes())
    assert (row["frames"], row["stated_frames"], row["read_share"]) == (35, 35, 1)
    assert row["duration"] == pytest.approx(1.4, abs=0.001)
    (segment,) = VIDEO.segment((FILES / "cut-editlist.mp4").read_bytes())
    assert segment.span == "seconds=0.000-1.400"


# -- how a frame is displayed

MATRICES = {
    2: (-1, 0, 0, 1),
    3: (-1, 0, 0, -1),
    4: (1, 0, 0, -1),
    5: (0, 1, 1, 0),
    6: (0, 1, -1, 0),
    7: (0, -1, -1, 0),
    8: (0, -1, 1, 0),
}


def displayed_by(data: bytes, terms: tuple[int, int, int, int]) -> bytes:
    """Write a display matrix into an mp4's only track (ISO/IEC 14496-12, `tkhd`)."""
    place = box(data, b"tkhd") + 48
    a, b, c, d = (term << 16 for term in terms)
    return data[:place] + struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30) + data[place + 36 :]


def turned(frame: Any, orientation: int) -> Any:
    """The frame as Pillow turns a picture of an EXIF orientation."""
    from PIL import Image, ImageOps

    picture = Image.fromarray(frame)
    exif = picture.getexif()
    exif[274] = orientation
    picture.info["exif"] = exif.tobytes()
    return np.asarray(ImageOps.exif_transpose(picture))


@pytest.mark.parametrize("aspect", [None, Fraction(16, 11), Fraction(1, 2)])
@pytest.mark.parametrize("orientation", [1, *MATRICES])
def test_display_matrix_and_shape_of_pixels(orientation: int, aspect: Fraction | None) -> None:
    data = film("mp4", "libx264", range(30), aspect)
    if orientation > 1:
        data = displayed_by(data, MATRICES[orientation])
    wide = round(WIDTH * aspect) if aspect else WIDTH
    size = (HEIGHT, wide) if orientation >= 5 else (wide, HEIGHT)
    row = VIDEO.probe(data)
    assert (row["width"], row["height"]) == size
    with open_frames(data) as frames, open_frames(data, (64, 64)) as small:
        for number in (5, 20):
            right = turned(numbered(number), orientation)
            for shown in (frames[number], small[number]):
                rows = np.linspace(4, shown.shape[0] - 5, 24).astype(int)
                columns = np.linspace(4, shown.shape[1] - 5, 24).astype(int)
                at = np.ix_(
                    rows * right.shape[0] // shown.shape[0], columns * right.shape[1] // shown.shape[1]
                )
                assert np.abs(shown[np.ix_(rows, columns)].astype(int) - right[at]).mean() < 25
        assert frames[5].shape == (size[1], size[0], 3)


# -- damage, and times that are not to be believed


def test_damage_in_the_middle() -> None:
    """1,500 bytes overwritten; FFmpeg's command line decodes 48 of 50 frames."""
    data = (FILES / "corrupt-middle.mp4").read_bytes()
    with pytest.raises(SampleError, match="2 of 50 frames cannot be decoded") as caught:
        VIDEO.probe(data)
    assert caught.value.error_class == "decode_error"
    row = VIDEO.probe_prefix(data)
    assert (row["read_share"], row["frames"], row["decoder"]) == (0.96, 50, "ffmpeg")
    assert [item.span for item in VIDEO.segment(data)] == ["seconds=0.000-2.000"]
    assert create("conse_frames").decode(data, "seconds=0.000-2.000").shape == (4, 224, 224, 3)


@pytest.mark.parametrize("container", ["mpeg", "mpegts"])
def test_films_that_were_joined(container: str) -> None:
    """The clock starts anew in the middle."""
    codec = "mpeg2video" if container == "mpeg" else "libx264"
    data = film(container, codec, range(30)) + film(container, codec, range(30, 60))
    with open_frames(data) as frames:
        assert [number_of(frame) for frame in frames.read(range(len(frames)))] == list(range(60))
        np.testing.assert_allclose(frames.starts, np.arange(60) / RATE, atol=0.05)
        assert number_of(frames[frames.at(2.01)]) == 50
    assert VIDEO.probe(data)["duration"] == pytest.approx(2.4, abs=0.05)


def test_times_that_are_known_rise_and_are_finite() -> None:
    limit = 10.0
    assert frame_times([None] * 4, 25, "h264", limit).tolist() == [0, 0.04, 0.08, 0.12]
    filled = frame_times([1.0, None, None, 1.12], 25, "matroska", limit)
    np.testing.assert_allclose(filled, [0, 0.04, 0.08, 0.12])
    stamps: list[float | None] = [index / 25 for index in range(40)]
    stamps[7], stamps[20] = stamps[6], 31_536_000.0
    found = frame_times(stamps, 30, "matroska", limit)
    assert np.isnan(found[[7, 20]]).all()
    assert np.isfinite(found).sum() == 38
    with pytest.raises(SampleError, match="the times of 20 of 40 frames are not known"):
        frame_times([0.0] * 21 + [index / 25 for index in range(21, 40)], 30, "matroska", limit)
    # As many frames as the rate says, in as much time.
    np.testing.assert_allclose(frame_times(stamps, 25, "matroska", limit), np.arange(40) / 25)
