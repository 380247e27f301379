"""Audio: decode in blocks by FFmpeg; measure loudness, clipping, silence and speech; cut into windows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from mm_embed_kernels.contracts import field
from mm_embed_kernels.errors import SampleError
from mm_embed_kernels.media import canaries
from mm_embed_kernels.media.audio import open_audio
from mm_embed_kernels.media.cuts import cut_sound
from mm_embed_kernels.media.media_type import Media
from mm_embed_kernels.media.recordings import SLACK_SECONDS, Recording
from mm_embed_kernels.media.spans import span_of
from mm_embed_kernels.modalities.base import DECODING_SIGNALS, PREVIEW_POINTS, Modality, Preview, Segment
from mm_embed_kernels.signals.sound import LoudnessMeter
from mm_embed_kernels.similarity import acoustic_fingerprint

# Ten seconds hold a sentence, or a sound with its surroundings: short enough to listen to as a search result.
WINDOW_SECONDS = 10.0
# The overlap is as long as a word, a stroke or a bark, so that each is whole in some window; about a block of
# the embedder.
OVERLAP_SECONDS = 2.0
# A recording of up to ten minutes is measured completely, a longer one in twenty evenly spaced windows:
# shares are accurate to a few percent, and a ten-hour recording takes seconds.
MEASURED_SECONDS, _MEASURED_WINDOWS = acoustic_fingerprint.SECONDS, acoustic_fingerprint.WINDOWS
_PREVIEW_HZ, _PREVIEW_SECONDS = 8_000, 60.0
_EVEN = "; a recording of more than 10 minutes is measured on 20 evenly spaced windows of 30 s"


class Audio(Modality):
    """Recordings of speech, music and noises; a cover picture in one does not make it a video."""

    name = "audio"
    embedder = "aisfx"
    hub_embedder = "torchaudio:WAV2VEC2_BASE"
    libraries = ("av", "soundfile", "onnxruntime", "silero-vad", "filetype")
    streams = True
    spoken = True
    probe_version = "9"
    segment_version = "5"
    probe_seconds = 0.02
    segment_seconds = 0.002
    signals: ClassVar[list[pa.Field]] = [
        *DECODING_SIGNALS,
        field("codec", pa.string(), "codec, by FFmpeg's or libsndfile's name"),
        field("channels", pa.int64(), "channels of the recording", ge=1),
        field("bit_rate", pa.int64(), "bits per second of the whole file", ge=0),
        field(
            "loudness",
            pa.float64(),
            "integrated loudness, LUFS (ITU-R BS.1770); null below its gate of -70 LUFS or 0.4 s" + _EVEN,
        ),
        field("peak", pa.float64(), "largest absolute sample, 1 is full scale" + _EVEN, ge=0),
        field("clipping_share", pa.float64(), "samples at full scale, all channels" + _EVEN, ge=0, le=1),
        field(
            "silence_share",
            pa.float64(),
            "frames of 32 ms quieter than -60 dBFS (RMS of the mono mix)" + _EVEN,
            ge=0,
            le=1,
        ),
        field(
            "speech_share",
            pa.float64(),
            "frames of 32 ms in which Silero VAD detects speech" + _EVEN,
            ge=0,
            le=1,
        ),
        field(
            "not_finite_share",
            pa.float64(),
            "samples that are NaN or infinite, all channels; NaN is heard as zero" + _EVEN,
            ge=0,
            le=1,
        ),
        field("damaged_packets", pa.int64(), "packets that the decoder rejected" + _EVEN, ge=0),
        field(
            "measured_seconds",
            pa.float64(),
            "seconds of the recording that were measured for these signals",
            ge=0,
        ),
        field(
            "fingerprint",
            pa.binary(),
            "acoustic fingerprint, a uint32 for each 23 ms" + _EVEN,
        ),
    ]

    packed: ClassVar[dict[str, Callable[[bytes], bool]]] = {"fingerprint": lambda data: len(data) % 4 == 0}

    def canary(self) -> bytes:
        return canaries.sound()

    def claims(self, mime: str) -> bool:
        # MIDI is a score without any sound.
        return mime.startswith("audio/") and mime != "audio/midi"

    def probe(self, data: Media) -> dict[str, Any]:
        return self._measure(data, whole=True)

    def probe_prefix(self, data: Media) -> dict[str, Any]:
        return self._measure(data, whole=False)

    def _measure(self, data: Media, whole: bool) -> dict[str, Any]:
        """Return the row of a recording; unless it must be `whole`, of its readable beginning.

        Raises:
            SampleError: see `require`; ``decode_error``, ``no_samples`` or ``truncated``.
        """
        mime = self.require(data)
        with open_audio(data) as reader:
            stated = duration = reader.duration()
            if stated > MEASURED_SECONDS:
                duration = reader.length()
            meter, throughout = LoudnessMeter(), duration <= MEASURED_SECONDS
            for start, end in measured_windows(duration):
                meter.measure(reader, start, end)
            if throughout:
                duration = reader.count() if meter.end >= MEASURED_SECONDS - SLACK_SECONDS else meter.end
            missing = stated - duration
            if not meter.samples:
                self._explain_emptiness(reader, missing, whole)
            if meter.samples and not meter.finite:
                raise SampleError(
                    "decode_error", f"all {meter.samples:,} samples are NaN or infinite: there is no sound"
                )
            short = reader.promised and missing > SLACK_SECONDS
            if reader.cut and whole:
                raise SampleError(
                    "truncated", f"the file is cut off inside its container, after {duration:.2f} s of sound"
                )
            if short and whole:
                raise SampleError(
                    "truncated",
                    f"the recording ends {missing:.2f} s before its header says, at {duration:.2f} s",
                )
            return {
                "mime": mime,
                "decoder": reader.decoder,
                "read_share": round(min(1.0, duration / stated), 6) if short else None if reader.cut else 1.0,
                "duration": round(duration, 6),
                "sample_rate": reader.sample_rate,
                "codec": reader.codec,
                "channels": reader.channels,
                "bit_rate": reader.bit_rate,
                "damaged_packets": reader.damaged,
                **meter.signals(),
            }

    def _explain_emptiness(self, reader: Recording, missing: float, whole: bool) -> None:
        """Raise the error of a recording without one sample, unless it is one that was cut off."""
        if reader.damaged:
            raise SampleError(
                "decode_error", f"the {reader.codec} decoder refuses all {reader.damaged} packets"
            )
        if not reader.cut and missing <= SLACK_SECONDS:
            raise SampleError("no_samples", "the file is well formed, but holds not one sample of sound")
        if not whole:
            raise SampleError("truncated", "the file is cut off before its first sample of sound")

    def segment(self, data: Media) -> list[Segment]:
        self.require(data)
        with open_audio(data) as reader:
            rate, duration = reader.sample_rate, reader.length()
            return [
                Segment(span_of(start, end), cost=max(1, round((end - start) * rate)))
                for start, end in windows(duration)
            ]

    def cut(self, data: Media, span: str) -> tuple[bytes, str]:
        return cut_sound(data, span), "flac"

    def preview(self, data: Media) -> Preview:
        """Return the waveform of the first minute."""
        with open_audio(data) as reader:
            samples = reader.read(_PREVIEW_HZ, 0.0, min(reader.duration(), _PREVIEW_SECONDS))
        parts = np.array_split(np.abs(samples), min(PREVIEW_POINTS, max(1, len(samples))))
        return Preview(wave=np.array([part.max(initial=0.0) for part in parts], np.float32).clip(0, 1))


def windows(duration: float) -> list[tuple[float, float]]:
    """Return start and end of each window in seconds: ten long, eight apart, the last one shorter.

    A clip shorter than a window is one window.
    """
    hop = WINDOW_SECONDS - OVERLAP_SECONDS
    # The rest after the last full window is a window of its own unless the overlap already covers it.
    count = max(1, -(-int(1000 * (duration - OVERLAP_SECONDS)) // int(1000 * hop)))
    return [(hop * i, min(hop * i + WINDOW_SECONDS, duration)) for i in range(count)] if duration > 0 else []


def measured_windows(duration: float) -> list[tuple[float, float]]:
    """Return the parts that `Audio.probe` measures, in seconds; the last one ends with the recording."""
    if duration <= MEASURED_SECONDS:
        # Beyond the stated end, too: headers may state less than the file holds.
        return [(0.0, MEASURED_SECONDS)]
    length = MEASURED_SECONDS / _MEASURED_WINDOWS
    step = (duration - length) / (_MEASURED_WINDOWS - 1)
    return [(step * i, step * i + length) for i in range(_MEASURED_WINDOWS)]
