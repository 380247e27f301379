"""Kernel of transcription: sound is decoded in the sandbox, then transcribed by a model."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from mm_embed_kernels.errors import SampleError
from mm_embed_kernels.identity import digest
from mm_embed_kernels.kernels.base import RESULT, BlobReader, Kernel, Resources, Stage, replace_value, results
from mm_embed_kernels.kernels.blob_stage import load_blobs, map_in_sandbox
from mm_embed_kernels.media.audio import open_audio
from mm_embed_kernels.media.media_type import Media
from mm_embed_kernels.media.spans import seconds_of
from mm_embed_kernels.modalities import get
from mm_embed_kernels.sandbox.sandbox import Limits
from mm_embed_kernels.signals import speech
from mm_embed_kernels.transcribers import Transcriber


class TranscribeKernel(Kernel):
    """Text and language of a window of sound.

    Both are null where Silero VAD detects no speech: Whisper would invent some. Requests are keyed by content
    and span, as for `EmbedKernel`.
    """

    limits: Limits
    payload = [pa.field("text", pa.string()), pa.field("language", pa.string())]

    def __init__(
        self,
        transcriber: Transcriber,
        reader: BlobReader,
        limits: Limits = Limits(),
        decode: Resources = Resources(batch_rows=16),
        infer: Resources = Resources(batch_rows=16),
    ) -> None:
        self.transcriber, self.reader, self.limits = transcriber, reader, limits
        self.decode, self.infer = decode, infer
        self.models = (transcriber,)
        self.name = f"transcribe:{transcriber.name}"
        self.scope = f"transcribe-{transcriber.name}"
        # The probe of speech decides which windows have a text.
        self.fingerprint = digest("transcribe", transcriber.fingerprint, get("audio").fingerprint("probe"))
        self.seconds_per_row = transcriber.seconds

    def stages(self) -> list[Stage]:
        return [
            SpeechStage(self.reader, self.limits, self.decode),
            TranscribeStage(self.transcriber, self.result, self.infer),
        ]


def read_speech(data: Media, span: str) -> np.ndarray[Any, Any]:
    """Return the sound of a span, float32 [n] at 16 kHz, n = 0 without speech; runs inside the sandbox.

    Raises:
        SampleError: as `open_audio`.
    """
    with open_audio(data) as recording:
        samples = recording.read(speech.RATE, *seconds_of(span))
    return samples if (speech.probabilities(samples) >= speech.THRESHOLD).any() else samples[:0]


def _check_sound(answer: Any, span: str) -> np.ndarray[Any, Any] | SampleError:
    """Return a decoder's answer, which is not trusted to be what `read_speech` returns."""
    if isinstance(answer, SampleError):
        return answer
    start, end = seconds_of(span)
    most = (end - start) * speech.RATE + speech.RATE
    if isinstance(answer, np.ndarray) and answer.dtype == np.float32 and answer.ndim == 1:
        sound: np.ndarray[Any, Any] = answer
        if len(sound) <= most:
            return sound
    return SampleError("bad_answer", f"the decoder answered no sound of {span}")


class SpeechStage(Stage):
    """Decodes the speech of blobs in the sandbox, so that the model's stage opens no untrusted bytes."""

    schema = pa.schema([*RESULT, pa.field("sound", pa.large_list(pa.float32()))])
    limits: Limits

    def __init__(self, reader: BlobReader, limits: Limits, resources: Resources) -> None:
        self.reader, self.limits, self.resources = reader, limits, resources

    def run(self, batch: pa.Table) -> pa.Table:
        began = time.perf_counter()
        spans = batch["span"].to_pylist()
        answers = map_in_sandbox(
            self.limits,
            read_speech,
            load_blobs(self.reader, batch, streams=True),
            [(span,) for span in spans],
            get("audio"),
        )
        outcomes = [_check_sound(answer, span) for answer, span in zip(answers, spans, strict=True)]
        flags: list[Any] = [outcome if isinstance(outcome, SampleError) else {} for outcome in outcomes]
        table = results(batch["key"].to_pylist(), flags, time.perf_counter() - began, pa.schema(RESULT))
        sounds = [None if isinstance(outcome, SampleError) else outcome for outcome in outcomes]
        return table.append_column("sound", pa.array(sounds, self.schema.field("sound").type))


class TranscribeStage(Stage):
    """Transcribes speech."""

    infers = True

    def __init__(self, transcriber: Transcriber, schema: pa.Schema, resources: Resources) -> None:
        self.transcriber, self.schema, self.resources = transcriber, schema, resources

    @property
    def reads(self) -> tuple[Path, ...]:
        return self.transcriber.weights

    def setup(self) -> None:
        self.transcriber.load()

    def run(self, batch: pa.Table) -> pa.Table:
        rows = batch.select([item.name for item in RESULT]).to_pylist()
        transcribed = []
        for row, sound in zip(rows, batch["sound"], strict=True):
            began = time.perf_counter()
            outcome: Any = {}
            if sound.is_valid and len(sound.values):
                outcome = self._transcribe(sound.values.to_numpy())
            seconds = row["seconds"] + time.perf_counter() - began
            if isinstance(outcome, SampleError):
                transcribed += results([row["key"]], [outcome], seconds, self.schema).to_pylist()
            else:
                transcribed.append({**row, **outcome, "seconds": seconds})
        return pa.Table.from_pylist(transcribed, schema=self.schema)

    def canary(self, row: pa.Table) -> pa.Table:
        return replace_value(row, "sound", [0.0] * speech.RATE)

    def _transcribe(self, sound: np.ndarray[Any, Any]) -> dict[str, Any] | SampleError:
        try:
            ((text, language),) = self.transcriber.transcribe([sound])
        except Exception as error:  # noqa: BLE001 - a model may raise anything; the cause becomes the event
            return SampleError("transcription_error", f"{type(error).__name__}: {error}")
        return {"text": text or None, "language": language if text else None}
