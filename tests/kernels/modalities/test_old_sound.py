"""Sound of the nineties, for which FFmpeg has no writer: made by hand, with lengths that were counted."""

from __future__ import annotations

import random
import struct
from fractions import Fraction

import numpy as np
import pytest

from mm_embed_kernels.media.audio import read_window
from mm_embed_kernels.media.tracks import media_type
from mm_embed_kernels.modalities import get
from tests.kernels.sounds import mux, tone

AUDIO = get("audio")
ID3 = b"ID3\3\0\0\0\0\x08\0" + bytes(1_024)
# MPEG-1 layer 1, 32 kbit/s at 32 kHz, mono: 4 * 12 * 32,000 / 32,000 bytes and 384 samples in a frame. No band
# has bits: silence.
LAYER_1 = (b"\xff\xff\x18\xc0" + bytes(44)) * 100


@pytest.mark.parametrize("before", [b"", ID3, bytes(500)])
def test_mpeg_layer_1(before: bytes) -> None:
    row = AUDIO.probe(before + LAYER_1)
    assert (row["codec"], row["mime"], row["channels"]) == ("mp1", "audio/mpeg", 1)
    assert row["duration"] == pytest.approx(100 * 384 / 32_000)
    assert row["silence_share"] == 1


@pytest.mark.parametrize("before", [b"", ID3])
def test_mpeg_layer_2(before: bytes) -> None:
    """Frames of 1,152 samples: 42 hold a second of 48 kHz."""
    row = AUDIO.probe(before + mux("mp2", "mp2", seconds=1.0))
    assert (row["codec"], row["mime"], row["sample_rate"]) == ("mp2", "audio/mpeg", 48_000)
    assert row["duration"] == pytest.approx(42 * 1_152 / 48_000)


def real_audio(seconds: float, hertz: float) -> bytes:
    """Return a RealAudio file of version 3: a head, and frames of 20 bytes, each of 160 samples at 8 kHz."""
    import av

    coder = av.CodecContext.create("real_144", "w")
    coder.sample_rate, coder.layout, coder.format, coder.time_base = 8_000, "mono", "s16", Fraction(1, 8_000)
    samples = (tone(hertz, seconds, 8_000)[None, :, 0] * 32_767).astype(np.int16)
    frames = b""
    for start in range(0, samples.shape[1], 160):
        frame = av.AudioFrame.from_ndarray(
            np.ascontiguousarray(samples[:, start : start + 160]), format="s16", layout="mono"
        )
        frame.sample_rate, frame.pts = 8_000, start
        frames += b"".join(map(bytes, coder.encode(frame)))
    frames += b"".join(map(bytes, coder.encode(None)))
    texts = b"".join(bytes([len(text)]) + text for text in (b"title", b"author", b"", b""))
    head = bytes(8) + struct.pack(">HI", 60_000, len(frames)) + texts + b"\0\x04lpcJ"
    return b".ra\xfd" + struct.pack(">HH", 3, len(head)) + head + frames


def test_real_audio() -> None:
    """The coder has one frame of delay."""
    data = real_audio(2.0, 440)
    row = AUDIO.probe(data)
    assert (row["codec"], row["mime"]) == ("real_144", "audio/x-pn-realaudio")
    assert row["duration"] == pytest.approx(2.02)
    heard = read_window(data, "seconds=0.500-1.500", 8_000, 1.0)
    assert int(np.abs(np.fft.rfft(heard)).argmax()) == pytest.approx(440, abs=1)


def test_monkeys_audio() -> None:
    """Three frames that are marked as silence: two of 73,728 samples, one of 44,100."""
    # CRC with the flag that flags follow, those of two silent channels, and what the range decoder reads.
    frames = [struct.pack("<II", 1 << 31, 3) + bytes(24)] * 3
    start = 52 + 24 + 4 * len(frames)
    table = b"".join(struct.pack("<I", start + 32 * number) for number in range(len(frames)))
    descriptor = struct.pack("<HHIIIIIII", 3_990, 0, 52, 24, len(table), 0, 32 * len(frames), 0, 0)
    head = struct.pack("<HHIIIHHI", 2_000, 32, 73_728, 44_100, len(frames), 16, 2, 44_100)
    data = b"MAC " + descriptor + bytes(16) + head + table + b"".join(frames)
    for before in (b"", ID3):
        row = AUDIO.probe(before + data)
        assert (row["codec"], row["channels"]) == ("ape", 2)
        assert row["duration"] == pytest.approx((2 * 73_728 + 44_100) / 44_100)
        assert row["silence_share"] == 1
        assert AUDIO.segment(before + data)


@pytest.mark.parametrize(("container", "coding", "frame", "mime"), [
    ("mp3", "libmp3lame", 1_152, "audio/mpeg"), ("mp2", "mp2", 1_152, "audio/mpeg"), ("adts", "aac", 1_024, "audio/aac"),
])  # fmt: skip
def test_a_recording_of_a_broadcast_begins_within_a_frame(
    container: str, coding: str, frame: int, mime: str
) -> None:
    """Behind the rest of that frame stand whole ones, and no tag that counts them."""
    whole = mux(container, coding, seconds=2.0)
    data = whole[1_501:]
    assert not data.startswith(b"\xff")
    assert media_type(data) == mime
    share = len(data) / len(whole)
    assert AUDIO.probe(data)["duration"] == pytest.approx(2.0 * share, abs=6 * frame / 48_000)
    assert AUDIO.segment(data)


def test_bytes_at_random_are_no_frames() -> None:
    dice = random.Random(0)
    assert {media_type(b"\0\1" + dice.randbytes(8_190)) for _ in range(200)} == {"application/octet-stream"}
