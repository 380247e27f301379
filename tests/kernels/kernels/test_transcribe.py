"""A made voice and noise through the real kernel and the real model."""

from __future__ import annotations

import pickle
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from mm_embed_kernels.errors import SampleError
from mm_embed_kernels.identity import content_hash
from mm_embed_kernels.kernels.base import REQUEST
from mm_embed_kernels.kernels.transcribe import TranscribeKernel, TranscribeStage, read_speech
from mm_embed_kernels.plugins import UnknownPlugin
from mm_embed_kernels.sandbox.sandbox import Limits
from mm_embed_kernels.transcribers import Transcriber, create, transcribers
from tests.kernels.sounds import RATE, encode_audio, noise


@dataclass
class Shelf:
    blobs: dict[str, bytes] = field(default_factory=dict)

    def read(self, content_hash: str, path: str, offset: int, size: int) -> bytes:
        return self.blobs[content_hash]

    media = read


def vowels(seconds: float = 2.0) -> Any:
    """A voice, made: pulses at 120 Hz through the three formants of [a] and [i] in turn (Peterson & Barney, 1952), with pauses."""
    from scipy.signal import lfilter

    pulses = np.zeros(round(seconds * RATE), np.float32)
    pulses[:: RATE // 120] = 1
    parts = []
    for number, part in enumerate(np.array_split(pulses, round(seconds * 4))):
        for hertz in ((730, 1090, 2440), (270, 2290, 3010))[number % 2]:
            radius = np.exp(-np.pi * 80 / RATE)
            part = lfilter([1 - radius], [1, -2 * radius * np.cos(2 * np.pi * hertz / RATE), radius**2], part)
        parts.append(part * np.hanning(len(part)))
    voice = np.concatenate(parts)
    return (0.5 * voice / np.abs(voice).max()).astype(np.float32)[:, None]


def requests(*blobs: bytes, spans: str = "seconds=0.000-10.000") -> tuple[Shelf, pa.Table]:
    rows = [
        {
            "key": f"k{i}",
            "content_hash": content_hash(blob),
            "span": spans,
            "path": "p",
            "offset": 0,
            "size": 1,
        }
        for i, blob in enumerate(blobs)
    ]
    return Shelf({content_hash(blob): blob for blob in blobs}), pa.Table.from_pylist(rows, schema=REQUEST)


@pytest.mark.parametrize("name", transcribers())
def test_declaration(name: str) -> None:
    found = create(name)
    assert found.__doc__
    assert found.libraries
    assert found.seconds > 0
    assert pickle.loads(pickle.dumps(found)).fingerprint == found.fingerprint
    assert create(name, threads=3).fingerprint == found.fingerprint


def test_unknown_transcriber() -> None:
    with pytest.raises(UnknownPlugin, match="whisper"):
        create("stenographer")


def test_settings_are_deterministic() -> None:
    settings = create("whisper").settings
    assert settings["temperature"] == 0.0
    assert not settings["condition_on_previous_text"]


def test_only_speech_reaches_the_model() -> None:
    assert len(read_speech(encode_audio(noise(2.0)), "seconds=0.000-2.000")) == 0
    assert len(read_speech(encode_audio(vowels()), "seconds=0.000-2.000")) == 2 * RATE


def test_a_row_for_each_request() -> None:
    voice, hiss, cut = encode_audio(vowels()), encode_audio(noise()), encode_audio(noise(), "FLAC")[:30]
    shelf, table = requests(hiss, cut, voice)
    kernel = TranscribeKernel(create("whisper", threads=1), shelf, Limits(memory_bytes=2 << 30))
    for stage in kernel.stages():
        stage.setup()
        table = stage.run(table)
    assert table.schema.equals(kernel.result)
    rows = table.to_pylist()
    assert [row["status"] for row in rows] == ["ok", "failed", "ok"]
    assert (rows[0]["text"], rows[0]["language"]) == (None, None)
    assert rows[1]["error_class"] in ("decode_error", "truncated")
    assert rows[2]["text"] is None or rows[2]["language"] == "en"


def test_the_same_sound_gives_the_same_text() -> None:
    whisper = create("whisper", threads=1)
    sound = vowels()[:, 0]
    assert whisper.transcribe([sound, sound])[0] == whisper.transcribe([sound])[0]


class Broken(Transcriber):
    """Knows nothing."""

    name = ""
    weights = ()
    settings: dict[str, Any] = {}

    def load(self) -> None: ...

    def transcribe(self, sounds: list[np.ndarray[Any, Any]]) -> list[tuple[str, str]]:
        raise ValueError("no idea")


def test_a_model_that_fails_costs_its_row() -> None:
    found = TranscribeStage(
        Broken(), TranscribeKernel(Broken(), Shelf()).result, TranscribeKernel(Broken(), Shelf()).infer
    )._transcribe(noise()[:, 0])
    assert isinstance(found, SampleError)
    assert (found.error_class, found.message) == ("transcription_error", "ValueError: no idea")
