"""Video: containers held against frames, signals, scenes, and frames that stand where their span says."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mm_embed_kernels.embedders import create
from mm_embed_kernels.errors import SampleError
from mm_embed_kernels.media.ffmpeg_frames import _Decoder
from mm_embed_kernels.media.frames import open_frames
from mm_embed_kernels.media.spans import seconds_of
from mm_embed_kernels.media.video import describe
from mm_embed_kernels.modalities import get
from mm_embed_kernels.modalities.video import (
    MEASURED_FRAMES,
    MIN_SCENE_SECONDS,
    SEGMENT_SECONDS,
    Video,
    frames_to_measure,
    scenes,
)
from tests.kernels.sounds import mux
from tests.kernels.videos import RATE, SIZE, black, encode_video, pan, still

VIDEO = get("video")
CONTAINERS = {
    "mp4": ("libx264", "h264"), "mov": ("mpeg4", "mpeg4"), "matroska": ("libx264", "h264"), "webm": ("libvpx", "vp8"),
    "avi": ("mpeg4", "mpeg4"), "ogg": ("libvpx", "vp8"),
}  # fmt: skip


def error_class(data: bytes) -> str:
    with pytest.raises(SampleError) as caught:
        VIDEO.probe(data)
    return caught.value.error_class


# -- what is there


@pytest.mark.parametrize("container", CONTAINERS)
def test_the_probe_of_every_container(container: str) -> None:
    codec, name = CONTAINERS[container]
    row = VIDEO.probe(encode_video(pan(), container, codec))
    assert row["mime"].startswith("video/")
    assert (row["width"], row["height"], row["frames"]) == (*SIZE, 2 * RATE)
    assert row["codec"] == name
    assert row["duration"] == pytest.approx(2.0, abs=0.11)
    assert row["frame_rate"] == pytest.approx(RATE, rel=0.06)
    assert row["stated_frames"] in (None, 2 * RATE)
    assert row["audio_codec"] is None
    assert row["key_frames"] >= 1


def test_the_sound_track_is_named() -> None:
    assert VIDEO.probe(encode_video(pan(), sound="aac"))["audio_codec"] == "aac"


def test_light_and_stillness() -> None:
    moving = VIDEO.probe(encode_video(pan()))
    assert 60 < moving["brightness"] < 200
    assert (moving["black_share"], moving["frozen_share"]) == (0, 0)
    dark = VIDEO.probe(encode_video(still(black())))
    assert (dark["black_share"], dark["frozen_share"]) == (1, 1)
    assert dark["brightness"] < 20
    half = VIDEO.probe(encode_video([*pan(), *still(black())]))
    assert half["black_share"] == pytest.approx(0.5, abs=0.05)
    assert half["frozen_share"] == pytest.approx(0.5, abs=0.05)


def test_a_single_frame_is_a_video() -> None:
    data = encode_video(pan(seconds=0.1))
    row = VIDEO.probe(data)
    assert (row["frames"], row["frozen_share"]) == (1, 0)
    (segment,) = VIDEO.segment(data)
    assert create("conse_frames").decode(data, segment.span).shape == (4, 224, 224, 3)


@given(st.integers(1, 5_000), st.integers(1, 400))
def test_measured_frames_are_few_ascending_and_there(count: int, distance: int) -> None:
    keys = np.arange(0, count, distance)
    found = frames_to_measure(count, keys)
    assert 1 <= len(found) <= MEASURED_FRAMES
    assert found == sorted(set(found))
    assert 0 <= found[0] <= found[-1] < count
    assert set(frames_to_measure(count, keys)) <= set(keys.tolist())
    assert len(frames_to_measure(count, None)) == min(count, MEASURED_FRAMES)


# -- what is not


@pytest.mark.parametrize("container", ["mp4", "mov", "matroska", "webm", "avi", "ogg"])
@pytest.mark.parametrize("share", [0.4, 0.9])
def test_a_video_that_is_cut_off(container: str, share: float) -> None:
    data = encode_video(pan(), container, CONTAINERS[container][0])
    assert error_class(data[: int(len(data) * share)]) == "truncated"


def test_a_cut_off_video_whose_table_stands_first() -> None:
    """Fragments: the table is whole, and so are some of the frames."""
    data = encode_video(
        pan(), container_options={"movflags": "frag_keyframe+empty_moov", "frag_size": "20000"}
    )
    assert data.index(b"moov") < data.index(b"mdat")
    assert error_class(data[:-50]) == "truncated"


def test_damage_is_a_cause_not_a_crash() -> None:
    data = bytearray(encode_video(pan()))
    data[40:80] = bytes(40)
    assert re.fullmatch("[a-z_]+", error_class(bytes(data[:200]))), "a head without a body"


def test_sound_alone_is_no_video() -> None:
    assert error_class(mux("mp4", "aac")) == "wrong_modality"


def test_a_playlist_is_not_followed(tmp_path: Path) -> None:
    """A text that names other files is a text; FFmpeg is not asked to open them."""
    (tmp_path / "real.mp4").write_bytes(encode_video(pan()))
    playlist = f"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\n{tmp_path}/real.mp4\n".encode()
    assert error_class(playlist) == "wrong_modality"
    with pytest.raises(SampleError):
        describe(playlist)


# -- scenes


def test_scenes_are_found_where_the_cut_is() -> None:
    data = encode_video([*pan(1, 3.0), *pan(2, 2.3), *pan(3, 1.4)])
    assert [item.span for item in VIDEO.segment(data)] == [
        "seconds=0.000-3.000",
        "seconds=3.000-5.300",
        "seconds=5.300-6.700",
    ]


def test_a_moving_camera_makes_no_scenes() -> None:
    assert [item.span for item in VIDEO.segment(encode_video(pan(1, 8.0)))] == ["seconds=0.000-8.000"]


def test_a_flash_makes_no_scene() -> None:
    data = encode_video([*pan(1, 2.0), *pan(2, 0.2), *pan(1, 2.0)])
    assert all(
        seconds_of(item.span)[1] - seconds_of(item.span)[0] >= MIN_SCENE_SECONDS
        for item in VIDEO.segment(data)
    )


def test_what_is_too_long_to_look_through_is_cut_by_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mm_embed_kernels.modalities.video.SCANNED_PIXELS", 1)
    data = encode_video([*pan(1, 6.0), *pan(2, 6.0)])
    assert [item.span for item in VIDEO.segment(data)] == ["seconds=0.000-6.000", "seconds=6.000-12.000"]


@given(st.floats(0, 10_000), st.lists(st.floats(0, 10_000), max_size=20))
def test_scenes_cover_the_video_once(duration: float, cuts: list[float]) -> None:
    found = scenes(duration, sorted(cut for cut in cuts if cut < duration))
    assert (found[0][0], found[-1][1]) == (0, duration)
    assert all(a[1] == b[0] for a, b in zip(found, found[1:], strict=False))
    assert all(end - start <= SEGMENT_SECONDS + 1e-3 for start, end in found)


# -- frames


def test_frames_stand_where_their_span_says() -> None:
    """Each second shows a tone of its own; both ways of reading, from bytes and from a file, show the same."""
    tones = [20, 80, 140, 200]
    data = encode_video([np.full((120, 160, 3), tone, np.uint8) for tone in tones for _ in range(RATE)])
    decoded = create("conse_frames").decode(data, "seconds=0.000-4.000")
    assert decoded.shape == (4, 224, 224, 3)
    assert np.abs(decoded.mean(axis=(1, 2, 3)) - tones).max() < 4
    third = create("conse_frames").decode(data, "seconds=2.000-3.000")
    assert np.abs(third.mean() - tones[2]) < 4


def test_a_file_is_read_as_its_bytes_are(tmp_path: Path) -> None:
    data = encode_video([*pan(1), *pan(2)])
    (tmp_path / "a").write_bytes(data)
    assert VIDEO.probe(tmp_path / "a") == VIDEO.probe(data)
    assert VIDEO.segment(tmp_path / "a") == VIDEO.segment(data)
    for span in ("seconds=0.000-2.000", "seconds=2.000-4.000", "seconds=0.000-2.000"):
        np.testing.assert_array_equal(
            create("conse_frames").decode(tmp_path / "a", span), create("conse_frames").decode(data, span)
        )
    (tmp_path / "a").write_bytes(encode_video(pan(3)))
    assert VIDEO.probe(tmp_path / "a")["frames"] == 2 * RATE, "another file of the same name is opened anew"


def test_the_first_frame_is_at_zero() -> None:
    """Films whose clock begins elsewhere (a cut of a longer one) count from their first frame, in both libraries."""
    with open_frames(encode_video(pan(1), begins=50)) as frames:
        assert frames.starts[0] == 0
        assert frames.at(-1) == 0
        assert frames.at(1e9) == len(frames) - 1
        assert frames.at(1.05) == 10
    assert describe(encode_video(pan(1), begins=50)).duration == pytest.approx(2.0, abs=0.11)


def test_decord_leaves_cuda_alone() -> None:
    """Its import would load all that pip has of CUDA into the process; and torch must live beside it."""
    code = (
        "from mm_embed_kernels.media.frames import load_decord; load_decord();"
        "maps = open('/proc/self/maps').read(); assert 'cublas' not in maps, 'CUDA is loaded';"
        "import torch; assert torch.nn.Linear(8, 8)(torch.zeros(1, 8)).shape == (1, 8); print('well')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parents[3]
    )
    assert done.stdout.strip() == "well", done.stderr


def test_video_in_the_space_of_pictures(photos: dict[str, Path]) -> None:
    """Two photographs, a scene each: a text finds the scene, and a scene of one picture is near that picture's vector."""
    from PIL import Image

    pictures: dict[str, Any] = {}
    for name, path in photos.items():
        with Image.open(path) as image:
            pictures[name] = np.asarray(image.convert("RGB").resize((320, 240)))
    data = encode_video([frame for picture in pictures.values() for frame in still(picture)])
    embedder, photo = create("conse_frames", threads=2), create("conse", threads=2)
    segments = VIDEO.segment(data)
    assert len(segments) == 2
    vectors = embedder.embed(np.stack([embedder.decode(data, item.span) for item in segments]))
    assert (vectors @ embedder.embed_text(["a flower", "a temple"]).T).argmax(axis=0).tolist() == [0, 1]
    of_photos = photo.embed(np.stack([photo.decode(path.read_bytes(), "full") for path in photos.values()]))
    assert float((vectors * of_photos).sum(axis=1).min()) > 0.8
    assert embedder.space == photo.space
    assert embedder.fingerprint != photo.fingerprint


def test_it_is_the_bundled_one() -> None:
    assert isinstance(VIDEO, Video)
    assert VIDEO.streams


def test_half_a_video_is_kept_where_the_spec_says_so() -> None:
    """`on_partial`: the frames that are there."""
    data = encode_video(pan(seconds=4.0), "matroska")
    half = data[: len(data) // 2]
    with pytest.raises(SampleError, match="truncated"):
        VIDEO.probe(half)
    row = VIDEO.probe_prefix(half)
    assert 0 < row["frames"] < 40
    assert float(VIDEO.segment(half)[-1].span.partition("-")[2]) == pytest.approx(row["duration"], abs=0.01)


def test_the_frames_of_a_transport_stream_are_told_apart() -> None:
    """decord gives one frame for all of them, without an error."""
    frames = pan(seconds=2.0, rate=25)
    with open_frames(encode_video(frames, "mpegts", "mpeg2video", rate=25)) as found:
        assert (found.decoder, len(found)) == ("ffmpeg", 50)
        for index in (3, 30, 7):
            assert np.abs(found[index].astype(int) - frames[index]).mean() < 20


def test_a_frame_of_a_transport_stream_is_sought(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not decoded from the beginning: of 6 s with a key frame each 12 frames, some groups are."""
    data = encode_video(pan(0, 6.0, 25), "mpegts", "mpeg2video", rate=25)
    decoded, whole = 0, _Decoder.frames

    def counted(decoder: _Decoder) -> Any:
        nonlocal decoded
        for frame in whole(decoder):
            decoded += 1
            yield frame

    with open_frames(data) as found:
        wanted = [140, 100, 60, 130]
        right = list(found.read(range(len(found))))
        monkeypatch.setattr(_Decoder, "frames", counted)
        for index in wanted:
            assert np.array_equal(found[index], right[index])
    assert decoded <= 4 * 4 * 12
