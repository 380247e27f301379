from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mm_embed_kernels.errors import SampleError
from mm_embed_kernels.media.audio import open_audio
from mm_embed_kernels.media.spans import seconds_of, span_of
from mm_embed_kernels.media.tracks import media_type
from mm_embed_kernels.modalities import get, sniff
from mm_embed_kernels.modalities.audio import measured_windows, windows
from mm_embed_kernels.sandbox.sandbox import call_guarded
from tests.kernels.media_samples import encode_image, picture
from tests.kernels.sounds import RATE, encode_audio, mux, noise, tone

AUDIO = get("audio")
# container -> (libsndfile's subtype, media type, whether it states a length that a cut file breaks)
KINDS = {
    "WAV": ("PCM_16", "audio/x-wav", True),
    "RF64": ("PCM_24", "audio/x-wav", True),
    "W64": ("PCM_16", "audio/x-w64", False),
    "FLAC": ("PCM_16", "audio/x-flac", True),
    "AIFF": ("PCM_16", "audio/x-aiff", True),
    "AU": ("ULAW", "audio/basic", True),
    "CAF": ("ALAW", "audio/x-caf", False),
    "OGG": ("VORBIS", "audio/ogg", True),
    "MP3": ("MPEG_LAYER_III", "audio/mpeg", True),
}
MUXED = {
    "mp4": ("aac", "audio/mp4"), "mov": ("pcm_s16le", "audio/mp4"), "matroska": ("libopus", "audio/x-matroska"),
    "webm": ("libopus", "audio/webm"), "ogg": ("libopus", "audio/ogg"), "adts": ("aac", "audio/aac"),
}  # fmt: skip


def error_class(data: bytes | Path) -> str:
    """As the sandbox reports it."""
    outcome = call_guarded(AUDIO.probe, (data,))
    assert isinstance(outcome, SampleError), outcome
    assert "Traceback" not in outcome.message
    return outcome.error_class


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("rate", "channels"), [(8_000, 1), (44_100, 2), (48_000, 1)])
def test_probe(kind: str, rate: int, channels: int) -> None:
    subtype, mime, _ = KINDS[kind]
    row = AUDIO.probe(encode_audio(noise(1.5, rate, channels), kind, rate, subtype))
    assert (row["mime"], row["sample_rate"], row["channels"], row["damaged_packets"]) == (
        mime,
        rate,
        channels,
        0,
    )
    assert row["duration"] == pytest.approx(1.5, abs=0.03)
    assert row["measured_seconds"] == row["duration"]
    assert row["bit_rate"] > 0
    assert row["clipping_share"] == 0
    assert row["silence_share"] < 0.05  # a lossy codec may leave a silent frame at the end
    assert row["speech_share"] < 0.1


@pytest.mark.parametrize("container", MUXED)
def test_containers_of_sound_alone_are_sound(container: str) -> None:
    sound, mime = MUXED[container]
    data = mux(container, sound)
    assert media_type(data) == mime
    row = AUDIO.probe(data)
    assert row["mime"] == mime
    assert row["duration"] == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize(("container", "sound", "video"), [
    ("mp4", "aac", "mpeg4"), ("mov", "aac", "mpeg4"), ("matroska", "libopus", "mpeg4"), ("webm", "libopus", "libvpx"), ("ogg", "libopus", "libvpx"),
])  # fmt: skip
def test_a_track_of_pictures_makes_a_video(container: str, sound: str, video: str) -> None:
    assert media_type(mux(container, sound, video)).startswith("video/")
    assert media_type(mux(container, None, video)).startswith("video/")


def test_an_ogg_names_its_codec_in_its_first_bytes() -> None:
    assert sniff(mux("ogg", "libopus", "libvpx")[:8192]) == "video/ogg"
    assert sniff(mux("ogg", "libopus")[:8192]) == "audio/ogg"


def test_the_table_of_tracks_may_stand_at_either_end() -> None:
    first = mux("mp4", "aac", container_options={"movflags": "frag_keyframe+empty_moov"})
    last = mux("mp4", "aac")
    assert first.index(b"moov") < first.index(b"mdat")
    assert last.index(b"moov") > last.index(b"mdat")
    assert media_type(first) == media_type(last) == "audio/mp4"


def test_a_score_is_no_sound() -> None:
    assert error_class(b"MThd\0\0\0\x06\0\0\0\x01\0\x60MTrk" + bytes(60)) == "unsupported_format"


def with_cover() -> bytes:
    import av

    stream = io.BytesIO()
    with av.open(stream, "w", format="mp3") as out:
        track: Any = out.add_stream("libmp3lame", rate=44_100, layout="mono")
        cover: Any = out.add_stream("png", rate=1)
        cover.width = cover.height = 64
        cover.pix_fmt, cover.disposition = "rgb24", 1024  # attached picture
        image = av.VideoFrame.from_ndarray(np.asarray(picture((64, 64))))
        image.pts = 0
        out.mux(cover.encode(image))
        out.mux(cover.encode())
        frame = av.AudioFrame.from_ndarray(
            np.ascontiguousarray(noise(1.0, 44_100).T), format="fltp", layout="mono"
        )
        frame.sample_rate = 44_100
        for part in av.AudioResampler("fltp", "mono", 44_100, frame_size=1152).resample(frame):
            out.mux(track.encode(part))
        out.mux(track.encode())
    return stream.getvalue()


def test_a_cover_is_no_video() -> None:
    data = with_cover()
    assert b"APIC" in data
    assert data.index(b"\x89PNG") < data.index(b"Info")
    row = AUDIO.probe(data)
    assert (row["mime"], row["codec"]) == ("audio/mpeg", "mp3float")
    assert row["duration"] == pytest.approx(1.0, abs=0.05)
    assert error_class(data[: len(data) * 2 // 3]) == "truncated"


# -- signals


def test_signals_measure_what_they_say() -> None:
    def probe(samples: Any) -> dict[str, Any]:
        return AUDIO.probe(encode_audio(samples, "WAV", RATE, "FLOAT"))

    half = probe(tone(1000, 2.0, level=0.5))
    assert half["peak"] == pytest.approx(0.5, abs=1e-4)
    # BS.1770: a sine of 997 Hz at full scale in one channel reads -3.01 LUFS; half of it 6.02 less.
    assert half["loudness"] == pytest.approx(-9.03, abs=0.1)
    assert probe(np.concatenate([tone(seconds=1.024), np.zeros((3 * 16_384, 1))]))[
        "silence_share"
    ] == pytest.approx(0.75, abs=0.02)
    assert probe(np.clip(tone(seconds=1.0, level=2.0), -1, 1))["clipping_share"] == pytest.approx(
        2 / 3, abs=0.01
    )
    quiet = probe(np.zeros((RATE, 1), np.float32))
    assert (quiet["loudness"], quiet["peak"], quiet["silence_share"], quiet["speech_share"]) == (
        None,
        0,
        1,
        0,
    )
    assert probe(noise(0.2))["loudness"] is None


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("rate", [22_050, 48_000])
def test_loudness_is_the_standards(rate: int, channels: int) -> None:
    import torch
    import torchaudio

    samples = noise(3.0, rate, channels) * np.linspace(0.1, 1, 3 * rate, dtype=np.float32)[:, None]
    reference = float(torchaudio.functional.loudness(torch.from_numpy(samples.T.copy()), rate))
    assert AUDIO.probe(encode_audio(samples, "WAV", rate, "FLOAT"))["loudness"] == pytest.approx(
        reference, abs=0.15
    )


@pytest.mark.parametrize(("rate", "wanted"), [(44_100, 16_000), (8_000, 44_100), (11_025, 44_100)])
def test_resampling_keeps_what_another_resampler_keeps(rate: int, wanted: int) -> None:
    import torch
    import torchaudio

    samples = sum(tone(hertz, 1.0, rate, 0.2) for hertz in (220, 1_000, 3_000))
    reference = torchaudio.functional.resample(torch.from_numpy(samples.T.copy()), rate, wanted)[0].numpy()
    with open_audio(encode_audio(samples, "WAV", rate, "FLOAT")) as reader:
        found = np.concatenate(list(reader.blocks(wanted)))
    inner = slice(wanted // 10, -wanted // 10)
    assert len(found) == pytest.approx(wanted, abs=2)
    assert np.abs(found[: len(reference)][inner] - reference[: len(found)][inner]).max() < 0.01


@pytest.mark.parametrize("rate", [400, 1_234, 11_025, 128_000, 192_000])
def test_odd_rates(rate: int) -> None:
    row = AUDIO.probe(encode_audio(noise(2.0, rate), "WAV", rate))
    assert row["sample_rate"] == rate
    assert row["duration"] == pytest.approx(2.0, abs=0.01)


def test_what_is_not_a_number_is_not_heard() -> None:
    samples = tone()
    samples[100:200] = np.nan
    samples[200:210] = np.inf
    row = AUDIO.probe(encode_audio(samples, "WAV", RATE, "FLOAT"))
    assert row["peak"] == 1
    assert np.isfinite([row["silence_share"], row["speech_share"], row["clipping_share"]]).all()


# -- windows


@pytest.mark.parametrize(("seconds", "expected"), [
    (0.02, [(0, 0.02)]), (9.99, [(0, 9.99)]), (10.0, [(0, 10)]), (10.5, [(0, 10), (8, 10.5)]), (18.0, [(0, 10), (8, 18)]),
    (18.001, [(0, 10), (8, 18), (16, 18.001)]), (0, []),
])  # fmt: skip
def test_windows(seconds: float, expected: list[tuple[float, float]]) -> None:
    assert windows(seconds) == expected


@pytest.mark.parametrize("seconds", [0.3, 25.0, 601.0, 36_000.0])
def test_windows_cover_a_recording(seconds: float) -> None:
    found = windows(seconds)
    assert (found[0][0], found[-1][1]) == (0, seconds)
    assert all(
        before[1] - after[0] == pytest.approx(2) for before, after in zip(found, found[1:], strict=False)
    )
    spans = [span_of(*window) for window in found]
    assert len(set(spans)) == len(spans)
    assert [seconds_of(span) for span in spans] == [pytest.approx(window) for window in found]


@pytest.mark.parametrize("span", ["full", "chars=0-1", "seconds=", "seconds=1-x"])
def test_what_is_no_span_of_seconds(span: str) -> None:
    with pytest.raises(SampleError, match="no span of seconds"):
        seconds_of(span)


def test_segments_name_places() -> None:
    found = AUDIO.segment(encode_audio(noise(11.0, 8_000), "FLAC", 8_000))
    assert [(item.span, item.cost) for item in found] == [
        ("seconds=0.000-10.000", 80_000),
        ("seconds=8.000-11.000", 24_000),
    ]


def test_a_long_recording_is_measured_on_even_windows() -> None:
    found = measured_windows(36_000.0)
    assert sum(end - start for start, end in found) == pytest.approx(600)
    assert (found[0][0], found[-1][1]) == (0, pytest.approx(36_000))
    row = AUDIO.probe(encode_audio(noise(660.0, 2_000), "FLAC", 2_000))
    assert row["duration"] == pytest.approx(660)
    assert row["measured_seconds"] == pytest.approx(600, abs=0.1)


# -- reading places


def ramp(kind: str, subtype: str) -> bytes:
    """Ten seconds whose loudness tells the second: a tone that grows by 0.05 each second."""
    return encode_audio(
        np.concatenate([tone(500, 1.0, RATE, 0.05 * (1 + second)) for second in range(10)]),
        kind,
        RATE,
        subtype,
    )


@pytest.mark.parametrize(
    ("kind", "subtype"), [(kind, KINDS[kind][0]) for kind in ("WAV", "FLAC", "OGG", "MP3", "AIFF")]
)
@pytest.mark.parametrize("path", [False, True], ids=["bytes", "path"])
def test_a_place_is_what_lies_there(kind: str, subtype: str, path: bool, tmp_path: Path) -> None:
    data: bytes | Path = ramp(kind, subtype)
    if path:
        (tmp_path / "sound").write_bytes(data)  # type: ignore[arg-type]
        data = tmp_path / "sound"
    with open_audio(data) as reader:
        for second in (7, 2, 0, 9):
            found = reader.read(RATE, second, second + 1)
            assert len(found) == pytest.approx(RATE, abs=1_200 if second == 9 else 0)
            middle = found[RATE // 4 : RATE * 3 // 4]
            assert np.abs(middle).max() == pytest.approx(0.05 * (1 + second), rel=0.08)


@pytest.mark.parametrize("kind", ["WAV", "FLAC"])
def test_places_join_without_a_seam(kind: str) -> None:
    samples = noise(4.0)
    with open_audio(encode_audio(samples, kind)) as reader:
        parts = np.concatenate([reader.read(RATE, start, start + 0.5) for start in np.arange(0, 4, 0.5)])
    np.testing.assert_allclose(parts, samples[:, 0], atol=1e-4)


def test_nothing_lies_behind_the_end() -> None:
    with open_audio(encode_audio(noise(1.0), "FLAC")) as reader:
        assert len(reader.read(RATE, 5.0, 6.0)) == 0


# -- damage


@pytest.mark.parametrize("kind", [kind for kind, (_, _, promises) in KINDS.items() if promises])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_truncated(kind: str, share: float) -> None:
    data = encode_audio(noise(5.0), kind, RATE, KINDS[kind][0])
    assert error_class(data[: int(len(data) * share)]) == "truncated"


@pytest.mark.parametrize("container", ["mp4", "mov"])
def test_truncated_before_its_table(container: str) -> None:
    data = mux(container, MUXED[container][0])
    assert error_class(data[: len(data) // 2]) == "truncated"


# libsndfile writes no byte at all for an empty FLAC or MP3.
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("FLAC", "MP3")])
def test_no_samples(kind: str) -> None:
    assert error_class(encode_audio(noise(0.0), kind, RATE, KINDS[kind][0])) == "no_samples"


def test_no_samples_in_a_wav() -> None:
    assert error_class(encode_audio(noise(0.0))) == "no_samples"


def test_zero_bytes() -> None:
    assert error_class(b"") == "zero_length"


def test_a_picture_and_a_film() -> None:
    assert error_class(encode_image(picture(), "PNG")) == "wrong_modality"
    assert error_class(mux("mp4", "aac", "mpeg4")) in ("wrong_modality", "unsupported_format")


@pytest.mark.parametrize(
    "signature", [b"fLaC", b"OggS", b"RIFF\xff\0\0\0WAVEfmt ", b"ID3\x04\0\0\0\0\0\0", b"\0\0\0\x20ftypM4A "]
)
def test_a_signature_alone_is_no_recording(signature: bytes) -> None:
    assert error_class(signature + b"nothing that follows makes sense" * 8) in (
        "decode_error",
        "truncated",
        "no_samples",
    )


@pytest.mark.parametrize("kind", ["FLAC", "OGG", "MP3"])
def test_flipped_bits_are_an_error_or_a_row(kind: str) -> None:
    good = encode_audio(noise(2.0), kind, RATE, KINDS[kind][0])
    dice = np.random.default_rng(1)
    for _ in range(20):
        data = bytearray(good)
        for place in dice.integers(0, len(data), 8):
            data[place] ^= 1 << int(dice.integers(8))
        outcome = call_guarded(AUDIO.probe, (bytes(data),))
        if isinstance(outcome, SampleError):
            assert outcome.error_class in (
                "decode_error",
                "truncated",
                "no_samples",
                "unsupported_format",
                "wrong_modality",
            ), outcome
        else:
            assert outcome["duration"] <= 2.6


def test_a_hole_is_not_an_end() -> None:
    """Damage in the middle of a recording that reaches its end is a signal, not a cut."""
    data = bytearray(encode_audio(noise(5.0), "FLAC"))
    middle = len(data) // 2
    data[middle : middle + 3_000] = bytes(3_000)
    row = AUDIO.probe(bytes(data))
    assert row["duration"] == pytest.approx(5.0, abs=0.01)
    assert row["measured_seconds"] < 4.9


@pytest.mark.parametrize("declared", [0, 0xFFFFFFFF, 0x7FFFFFFF])
def test_a_wav_that_was_written_to_a_pipe(declared: int) -> None:
    data = bytearray(encode_audio(noise(2.0)))
    place = data.index(b"data") + 4
    for offset in (4, place):
        data[offset : offset + 4] = declared.to_bytes(4, "little")
    if declared == 0:
        data[place : place + 4] = (0xFFFFFFFF).to_bytes(4, "little")
    assert AUDIO.probe(bytes(data))["duration"] == pytest.approx(2.0, abs=0.01)


def test_an_mp3_without_a_count_of_frames_is_as_long_as_it_sounds() -> None:
    whole = mux("mp3", "libmp3lame", seconds=4.0, container_options={"write_xing": "0"})
    assert not any(mark in whole[:4096] for mark in (b"Xing", b"Info"))
    assert AUDIO.probe(whole)["duration"] == pytest.approx(4.0, abs=0.1)
    assert AUDIO.probe(whole[: len(whole) // 2])["duration"] == pytest.approx(2.0, abs=0.2)
    assert AUDIO.segment(whole)[0].span.startswith("seconds=0.000-4.0")


def test_tags_that_are_not_text() -> None:
    data = bytearray(encode_audio(noise(), "OGG", RATE, "VORBIS"))
    place = data.index(b"libSndFile") if b"libSndFile" in data else data.index(b"vorbis", 60) + 12
    data[place : place + 4] = b"\xff\xfe\xc3\x28"
    outcome = call_guarded(AUDIO.probe, (bytes(data),))
    # The page's checksum is wrong now: FFmpeg may refuse the page, but never with an error about text.
    assert isinstance(outcome, dict) or "codec can't decode" not in outcome.message
    tagged = mux("mp3", "libmp3lame")
    body = tagged[10 + int.from_bytes(tagged[6:10], "big") :]
    frame = b"TIT2" + (6).to_bytes(4, "big") + b"\0\0\x03\xff\xfe\xe9\x80\x81"
    assert AUDIO.probe(b"ID3\x04\0\0" + len(frame).to_bytes(4, "big") + frame + body)[
        "duration"
    ] == pytest.approx(1.0, abs=0.1)


def test_scipys_odd_wavs() -> None:
    """Recordings of 1 to 64 bits, big-endian, RF64, early ends: a row or an error with a name."""
    import scipy.io

    files = sorted((Path(scipy.io.__file__).parent / "tests" / "data").glob("*.wav"))
    if not files:
        pytest.skip("SciPy was installed without its tests")
    outcomes = {path.name: call_guarded(AUDIO.probe, (path,)) for path in files}
    for name, outcome in outcomes.items():
        if isinstance(outcome, SampleError):
            assert outcome.error_class in ("truncated", "no_samples", "decode_error", "unsupported_format"), (
                name,
                outcome,
            )
        else:
            assert outcome["sample_rate"] > 0, name
    assert sum(isinstance(outcome, dict) for outcome in outcomes.values()) >= len(files) // 2
    assert outcomes["test-8000Hz-be-3ch-5S-24bit.wav"]["channels"] == 3


@pytest.mark.parametrize(("kind", "channels"), [("WAV", 3), ("WAV", 6), ("FLAC", 8), ("OGG", 8)])
def test_many_channels(kind: str, channels: int) -> None:
    row = AUDIO.probe(encode_audio(noise(1.0, channels=channels), kind))
    assert row["channels"] == channels
    assert 0 < row["peak"] <= 1


def test_too_many_channels() -> None:
    with pytest.raises(SampleError, match=r"unsupported_format: 13 channels.*split"):
        AUDIO.probe(encode_audio(noise(0.1, channels=13)))


def test_a_recording_that_changes_on_the_way() -> None:
    """Chained Ogg streams may differ in rate and channels."""
    chained = encode_audio(noise(1.0, 44_100), "OGG", 44_100) + encode_audio(
        noise(1.0, 22_050, 2), "OGG", 22_050
    )
    outcome = call_guarded(AUDIO.probe, (chained,))
    assert isinstance(outcome, dict) or (
        outcome.error_class == "decode_error" and "another rate" in outcome.message
    ), outcome


def test_ten_hours_are_cut_without_reading_them(tmp_path: Path) -> None:
    """A header alone says it: the samples of this WAV are a hole in the file."""
    head = bytearray(encode_audio(noise(0.1, 8_000), "WAV", 8_000))[:44]
    size = 36_000 * 8_000 * 2
    head[4:8], head[40:44] = (size + 36).to_bytes(4, "little"), size.to_bytes(4, "little")
    path = tmp_path / "long.wav"
    with path.open("wb") as stream:
        stream.write(head)
        stream.truncate(44 + size)
    found = AUDIO.segment(path)
    assert (len(found), found[-1].span) == (4_500, "seconds=35992.000-36000.000")
    row = AUDIO.probe(path)
    assert (row["duration"], row["silence_share"]) == (36_000, 1)
    assert row["measured_seconds"] == pytest.approx(600)


@pytest.mark.parametrize(
    ("kind", "share"), [("FLAC", 0.5), ("MP3", 0.5), ("AIFF", 0.5), ("WAV", None), ("OGG", None)]
)
def test_half_a_recording_is_kept_where_the_spec_says_so(kind: str, share: float | None) -> None:
    """`on_partial`: its windows end where the sound does."""
    data = encode_audio(noise(30.0), kind)
    half = data[: len(data) // 2]
    with pytest.raises(SampleError, match="truncated"):
        AUDIO.probe(half)
    row = AUDIO.probe_prefix(half)
    assert row["read_share"] == (None if share is None else pytest.approx(share, abs=0.02))
    assert row["duration"] == pytest.approx(15, abs=1)
    end = float(AUDIO.segment(half)[-1].span.partition("-")[2])
    assert end == pytest.approx(row["duration"], abs=0.5)
    assert AUDIO.probe(data)["read_share"] == 1


@pytest.mark.parametrize("rate", [400, 128_000, 655_350])
def test_rates_that_no_ear_needs(rate: int) -> None:
    row = AUDIO.probe(encode_audio(noise(2.0, rate), "FLAC", rate))
    assert (row["sample_rate"], row["duration"], row["decoder"]) == (rate, 2.0, "ffmpeg")


@pytest.mark.parametrize("count", [1, 100, 4_000])
def test_a_recording_of_one_block(count: int) -> None:
    """It cannot be sought in."""
    data = encode_audio(noise(count / RATE), "FLAC")
    assert AUDIO.probe(data)["duration"] == pytest.approx(count / RATE, abs=1e-6)
    assert len(AUDIO.segment(data)) == 1
    with open_audio(data) as reader:
        for _ in range(2):
            assert len(reader.read(RATE, 0.0, 1.0)) == count


@pytest.mark.parametrize("kind", ["CAF", "W64"])
def test_containers_that_end_early_without_a_word_from_the_decoder(kind: str) -> None:
    data = encode_audio(noise(2.0), kind)
    with pytest.raises(SampleError, match="truncated"):
        AUDIO.probe(data[: len(data) // 2])
