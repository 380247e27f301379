"""Containers of pictures that hold sound alone: the right values are the tracks that were written."""

from __future__ import annotations

import io

import pytest

from mm_embed_kernels.errors import SampleError
from mm_embed_kernels.media.track_kinds import iso_kinds
from mm_embed_kernels.media.tracks import media_type, stream_type
from mm_embed_kernels.modalities import get
from tests.kernels.modalities.test_sound_as_played import film
from tests.kernels.sounds import mux

AUDIO, VIDEO = get("audio"), get("video")
CONTAINERS = {
    "mpegts": ("mp2", "mpeg4", "audio/mp2t"),
    "mpeg": ("mp2", "mpeg1video", "audio/x-mpeg-ps"),
    "vob": ("ac3", "mpeg2video", "audio/x-mpeg-ps"),
    "flv": ("aac", "flv", "audio/x-flv"),
    "avi": ("mp2", "mpeg4", "audio/x-msvideo"),
    "nut": ("libopus", "mpeg4", "audio/x-nut"),
    "rm": ("ac3", "rv20", "audio/x-pn-realaudio"),
    "mxf_opatom": ("pcm_s16le", "mpeg2video", "audio/mxf"),
}


def error_class(modality: str, data: bytes) -> str:
    with pytest.raises(SampleError) as caught:
        get(modality).probe(data)
    return caught.value.error_class


@pytest.mark.parametrize("container", CONTAINERS)
def test_sound_alone_is_sound(container: str) -> None:
    sound, _, mime = CONTAINERS[container]
    data = mux(container, sound)
    assert media_type(data) == mime
    row = AUDIO.probe(data)
    assert (row["mime"], row["sample_rate"]) == (mime, 48_000)
    assert row["duration"] == pytest.approx(1.0, abs=0.05)
    assert [segment.span[:14] for segment in AUDIO.segment(data)] == ["seconds=0.000-"]
    assert error_class("video", data) == "wrong_modality"


def test_blu_ray_s_packets_have_a_time_before_them() -> None:
    data = mux("mpegts", "ac3", container_options={"mpegts_m2ts_mode": "1"})
    assert len(data) % 192 == 0
    assert AUDIO.probe(data)["mime"] == "audio/mp2t"


@pytest.mark.parametrize(
    "container", [name for name in CONTAINERS if name not in ("mpeg", "vob", "mxf_opatom")]
)
def test_a_film_with_or_without_sound_is_no_recording(container: str) -> None:
    sound, pictures, _ = CONTAINERS[container]
    for data in (mux(container, sound, pictures), mux(container, None, pictures)):
        assert media_type(data).startswith("video/")
        assert error_class("audio", data) == "wrong_modality"


def box(name: bytes, content: bytes) -> bytes:
    return (8 + len(content)).to_bytes(4, "big") + name + content


def track(number: int, handler: bytes, *more: bytes) -> bytes:
    head = box(b"tkhd", bytes(12) + number.to_bytes(4, "big") + bytes(68))
    return box(b"trak", head + b"".join(more) + box(b"mdia", box(b"hdlr", bytes(8) + handler + bytes(13))))


def test_pictures_of_chapters_are_covers() -> None:
    sound = track(1, b"soun", box(b"tref", box(b"chap", (2).to_bytes(4, "big"))))
    assert iso_kinds(sound + track(2, b"vide")) == {"A"}
    assert iso_kinds(sound + track(3, b"vide")) == {"A", "V"}
    assert iso_kinds(track(1, b"soun") + track(2, b"vide")) == {"A", "V"}


def test_damaged_tables_tell_nothing() -> None:
    for container, (sound, _, _) in CONTAINERS.items():
        data = mux(container, sound)
        for size in (*range(12, 400, 13), 5_000):
            assert stream_type(io.BytesIO(data[:size]))
            assert stream_type(io.BytesIO(data[:size] + bytes(2_000)))


def test_a_matroska_file_may_have_long_lengths() -> None:
    """GStreamer writes each length in eight bytes."""
    data = mux("matroska", "libopus")
    size = data[4] & 0x7F
    head = data[5 : 5 + size].replace(b"\x42\x82\x88matroska", b"\x42\x82\x01" + bytes(6) + b"\x08matroska")
    codec = data[5 + size :].replace(b"\x86\x86A_OPUS", b"\x86\x01" + bytes(6) + b"\x06A_OPUS")
    long = data[:4] + b"\x01" + len(head).to_bytes(7, "big") + head
    assert media_type(long + data[5 + size :]) == "audio/x-matroska"
    assert media_type(long + codec) == "audio/x-matroska"
    assert AUDIO.probe(long + data[5 + size :])["duration"] == pytest.approx(1.0, abs=0.05)


def test_a_cover_in_asf_is_no_film() -> None:
    """The stream of a JPEG (ASF_JFIF_Media in the specification) has shorter properties than one of pictures."""
    data = film("asf", "wmav2")
    properties = bytes.fromhex("9107dcb7b7a9cf118ee600c00c205365")
    kind = bytes.fromhex("00e11bb64e5bcf11a8fd00805f5c442b")
    body = kind + bytes(16 + 8) + b"\x08\0\0\0" + bytes(4) + b"\x02\0" + bytes(4) + bytes(8)
    cover = properties + (24 + len(body)).to_bytes(8, "little") + body
    size, count = int.from_bytes(data[16:24], "little"), int.from_bytes(data[24:28], "little")
    whole = (
        data[:16]
        + (size + len(cover)).to_bytes(8, "little")
        + (count + 1).to_bytes(4, "little")
        + data[28:30]
        + cover
        + data[30:]
    )
    assert media_type(whole) == "audio/x-ms-wma"
    assert AUDIO.probe(whole)["duration"] == pytest.approx(2.0, abs=0.1)
