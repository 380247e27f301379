"""Media of each format, random damage to them, and decompression bombs; all of it follows from a seed."""

from __future__ import annotations

import bz2
import gzip
import io
import random
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from functools import cache
from typing import Any

from tests.kernels.documents import pdf
from tests.kernels.media_samples import ENGLISH, GERMAN, RUSSIAN, encode_image, picture, png_bomb, png_chunk
from tests.kernels.sounds import encode_audio, mux, noise
from tests.kernels.videos import encode_video, pan

_PICTURES: dict[str, dict[str, Any]] = {
    "PNG": {}, "JPEG": {}, "WEBP": {}, "GIF": {}, "TIFF": {"compression": "tiff_lzw"}, "BMP": {}, "ICO": {}, "JPEG2000": {}, "AVIF": {},
    "PPM": {}, "DDS": {}, "ICNS": {}, "PCX": {}, "SGI": {}, "MPO": {}, "QOI": {},
}  # fmt: skip
_SOUNDS: list[tuple[str, str | None]] = [
    ("WAV", None), ("WAV", "FLOAT"), ("WAV", "IMA_ADPCM"), ("FLAC", None), ("OGG", None), ("OGG", "OPUS"), ("MP3", None), ("AIFF", None), ("CAF", None),
    ("AU", None), ("W64", None), ("RF64", None), ("VOC", None), ("NIST", None),
]  # fmt: skip
_MUXED = [
    ("mp4", "aac"),
    ("matroska", "libopus"),
    ("webm", "libopus"),
    ("adts", "aac"),
    ("ac3", "ac3"),
    ("mov", "pcm_s16le"),
]
_FILMS = [
    ("mp4", "libx264"), ("matroska", "libx264"), ("webm", "libvpx"), ("avi", "mpeg4"), ("mpegts", "mpeg2video"), ("flv", "flv"),
    ("asf", "wmv2"), ("mpeg", "mpeg2video"), ("mp4", "libx265"), ("webm", "libvpx-vp9"),
]  # fmt: skip


@cache
def media() -> dict[str, dict[str, bytes]]:
    """Undamaged media by modality and format."""
    drawn, heard, seen = picture((128, 128)), noise(0.5), pan(rate=25, seconds=0.6)
    return {
        "image": {
            **{kind: encode_image(drawn, kind, **options) for kind, options in _PICTURES.items()},
            "JPEG, progressive": encode_image(drawn, "JPEG", progressive=True),
            "PNG, 16 bits": encode_image(drawn.convert("I;16"), "PNG"),
            "JPEG, CMYK": encode_image(drawn.convert("CMYK"), "JPEG"),
        },
        "audio": {
            **{
                f"{kind} {subtype or ''}".strip(): encode_audio(heard, kind, subtype=subtype)
                for kind, subtype in _SOUNDS
            },
            **{f"{codec} in {container}": mux(container, codec, seconds=0.5) for container, codec in _MUXED},
        },
        "video": {
            f"{codec} in {container}": encode_video(seen, container, codec, rate=25)
            for container, codec in _FILMS
        },
        "text": {
            "utf-8": RUSSIAN.encode(),
            "cp1251": RUSSIAN.encode("cp1251"),
            "latin-1": GERMAN.encode("latin-1"),
            "utf-16": ENGLISH.encode("utf-16"),
            "shift_jis": ("東京は日本の首都です。" * 5).encode("shift_jis"),
        },
        "document": {
            "text": pdf([ENGLISH[:200], GERMAN[:200]]),
            "drawing": pdf([b"1 0 0 rg 0 0 300 400 re f"]),
            "scan beside text": pdf([b"0 0 1 rg 10 10 99 99 re f", "Lava flows from the volcano."]),
        },
    }


def _flip(data: bytearray, dice: random.Random) -> None:
    for _ in range(dice.choice([1, 3, 10, 50])):
        data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)


def _cut(data: bytearray, dice: random.Random) -> None:
    del data[dice.randrange(len(data)) :]


def _head(data: bytearray, dice: random.Random) -> None:
    """Replace the beginning by that of another format."""
    other = dice.choice([blob for blobs in media().values() for blob in blobs.values()])
    length = dice.choice([4, 16, 64, 512])
    data[:length] = other[:length]


def _random(data: bytearray, dice: random.Random) -> None:
    data[dice.choice([8, 16, 64, 256]) :] = dice.randbytes(dice.choice([0, 10, 5_000]))


def _hole(data: bytearray, dice: random.Random) -> None:
    place = dice.randrange(len(data))
    data[place : place + dice.randrange(1, 200)] = dice.choice(
        [dice.randbytes(64), bytes(100), b"\xff" * 4, data[place : place + 2_000] * 2]
    )


HARMS: list[Callable[[bytearray, random.Random], None]] = [_flip, _flip, _cut, _head, _random, _hole]


def damage(data: bytes, dice: random.Random) -> bytes:
    """Apply one random kind of damage."""
    copy = bytearray(data)
    dice.choice(HARMS)(copy, dice)
    return bytes(copy)


def _tar(name: str, data: bytes) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        info = tarfile.TarInfo(name)
        info.size = len(data)
        archive.addfile(info, io.BytesIO(data))
    return stream.getvalue()


def _zip(data: bytes, depth: int) -> bytes:
    for level in range(depth):
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
            for copy in range(4):
                archive.writestr(f"{level}-{copy}", data)
        data = stream.getvalue()
    return data


@cache
def bombs() -> dict[str, bytes]:
    """Small files that decode to large data, or are something else than they declare."""
    zeros = bytes(32 << 20)
    lines = "".join(f'<!ENTITY l{i} "{f"&l{i - 1};" * 10}">' for i in range(1, 10))
    text = zipfile_text = b"a" * (4 << 20)
    return {
        "png": png_bomb(60_000, 60_000),
        "png that keeps its word": encode_image(picture((1, 1)).resize((12_000, 12_000)), "PNG"),
        "png text": b"\x89PNG\r\n\x1a\n" + png_chunk(b"zTXt", b"a\0\0" + zlib.compress(text)) * 20,
        "gif": encode_image(picture(), "GIF")[:6] + b"\xff\xff\xff\xff" + encode_image(picture(), "GIF")[10:],
        "svg": b"<?xml version='1.0'?><!DOCTYPE svg [<!ENTITY l0 'lol'>"
        + lines.encode()
        + b"]><svg xmlns='http://www.w3.org/2000/svg'>&l9;</svg>",
        "svg that reads a file": b"<svg xmlns='http://www.w3.org/2000/svg'><image href='file:///etc/passwd'/></svg>",
        "gzip": gzip.compress(zeros),
        "bzip2": bz2.compress(zeros),
        "zip in zip": _zip(zipfile_text, 4),
        "tar that climbs": _tar("../../../../tmp/climbed", b"out"),
        "playlist": b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n",
        "concat script": b"ffconcat version 1.0\nfile /etc/passwd\n",
        "wav of 4 GB": encode_audio(noise(0.1))[:40] + b"\xff\xff\xff\x7f",
        "wav without samples": encode_audio(noise(0)),
        "nothing": b"",
        "one byte": b"\xff",
        "zeros": bytes(100_000),
    }
