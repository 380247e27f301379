"""Sound: decoded by FFmpeg in blocks, described by loudness, peak, clipping, silence and speech, cut into windows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import pyarrow as pa

from mm_embed_kernels.contracts import field
from mm_embed_kernels.errors import SampleError
from mm_embed_kernels.media.media_type import Media
from mm_embed_kernels.media.spans import span_of
from mm_embed_kernels.modalities.base import PREVIEW_PLACES, READING, Modality, Preview, Segment

if TYPE_CHECKING:
    from mm_embed_kernels.media.audio import Reader

# Ten seconds are a sentence or a sound with its surroundings: an answer that a person listens to, not one that is searched.
WINDOW_SECONDS = 10.0
# Windows overlap by what a word, a stroke or a bark takes, so that each is whole in one of them; about a block of the embedder.
OVERLAP_SECONDS = 2.0
# A recording of up to ten minutes is measured as a whole, of a longer one twenty windows spread evenly: enough for shares
# within some percent, and a ten-hour recording is done in seconds.
MEASURED_SECONDS, _MEASURED_WINDOWS = 600.0, 20
# Codecs pad and prime by up to two frames (2 x 2,048 samples at 16 kHz).
_SLACK_SECONDS = 0.25
_PREVIEW_HZ, _PREVIEW_SECONDS = 8_000, 60.0
_EVEN = "; of a recording of more than 10 minutes, measured on 20 evenly spaced windows of 30 s"


class Audio(Modality):
    """Recordings of sound: speech, music, noises (a cover picture in them is no video)."""

    name = "audio"
    embedder = "aisfx"
    hub_embedder = "torchaudio:WAV2VEC2_BASE"
    libraries = ("av", "soundfile", "onnxruntime", "silero-vad", "filetype")
    streams = True
    spoken = True
    probe_version = "5"
    segment_version = "2"
    probe_seconds = 0.02
    segment_seconds = 0.002
    signals: ClassVar[list[pa.Field]] = [
        *READING,
        field("codec", pa.string(), "FFmpeg's or libsndfile's name of the coding"),
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
            "frames of 32 ms in which Silero VAD hears speech" + _EVEN,
            ge=0,
            le=1,
        ),
        field("damaged_packets", pa.int64(), "packets that the decoder refused" + _EVEN, ge=0),
        field(
            "measured_seconds", pa.float64(), "how much of the recording these signals were measured on", ge=0
        ),
        field(
            "fingerprint",
            pa.binary(),
            "acoustic fingerprint, a uint32 for each 23 ms of the first minute; of a recording of more than 10 minutes, of 30 s",
        ),
    ]

    def claims(self, mime: str) -> bool:
        # MIDI is a score: it holds no sound.
        return mime.startswith("audio/") and mime != "audio/midi"

    def probe(self, data: Media) -> dict[str, Any]:
        return self._measured(data, whole=True)

    def probe_prefix(self, data: Media) -> dict[str, Any]:
        return self._measured(data, whole=False)

    def _measured(self, data: Media, whole: bool) -> dict[str, Any]:
        from mm_embed_kernels.media.audio import open_audio
        from mm_embed_kernels.signals.sound import Meter

        mime = self.require(data)
        with open_audio(data) as reader:
            stated = duration = reader.duration()
            meter, throughout = Meter(), duration <= MEASURED_SECONDS
            for start, end in measured_windows(duration):
                meter.listen(reader, start, end)
            missing = duration - meter.end
            if throughout:
                duration = reader.count() if meter.end >= MEASURED_SECONDS - _SLACK_SECONDS else meter.end
            if not meter.seconds:
                if reader.damaged:
                    raise SampleError(
                        "decode_error", f"the {reader.codec} decoder refuses all {reader.damaged} packets"
                    )
                if not reader.cut and missing <= _SLACK_SECONDS:
                    raise SampleError(
                        "no_samples", "the file is well formed, but holds not one sample of sound"
                    )
                if not whole:
                    raise SampleError("truncated", "the file is cut off before its first sample of sound")
            short = reader.promised and missing > _SLACK_SECONDS
            if reader.cut and whole:
                raise SampleError(
                    "truncated", f"the file is cut off inside its container, after {duration:.2f} s of sound"
                )
            if short and whole:
                raise SampleError(
                    "truncated",
                    f"the recording ends {missing:.2f} s before its header says, at {duration:.2f} s",
                )
            if short and not throughout:
                duration = reader.count()
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

    def segment(self, data: Media) -> list[Segment]:
        from mm_embed_kernels.media.audio import open_audio

        self.require(data)
        with open_audio(data) as reader:
            rate, duration = reader.sample_rate, heard(reader)
            return [
                Segment(span_of(start, end), cost=max(1, round((end - start) * rate)))
                for start, end in windows(duration)
            ]

    def preview(self, data: Media) -> Preview:
        """The waveform of its first minute."""
        import numpy as np

        from mm_embed_kernels.media.audio import open_audio

        with open_audio(data) as reader:
            samples = reader.read(_PREVIEW_HZ, 0.0, min(reader.duration(), _PREVIEW_SECONDS))
        parts = np.array_split(np.abs(samples), min(PREVIEW_PLACES, max(1, len(samples))))
        return Preview(wave=np.array([part.max(initial=0.0) for part in parts], np.float32).clip(0, 1))


def heard(reader: Reader) -> float:
    """Seconds, as `Reader.duration` gives them, or fewer where the recording ends a second or more before its header says."""
    duration = reader.duration()
    try:
        if len(reader.read(reader.sample_rate, max(0.0, duration - 1), duration)):
            return duration
    except SampleError:
        pass  # what cannot be reached is not there
    return min(duration, reader.count())


def windows(duration: float) -> list[tuple[float, float]]:
    """Start and end of each window, in seconds: ten long, eight apart; the last is shorter, and a short clip is one window."""
    hop = WINDOW_SECONDS - OVERLAP_SECONDS
    # What is left after the last full window is a window of its own if the overlap does not already hold it.
    count = max(1, -(-int(1000 * (duration - OVERLAP_SECONDS)) // int(1000 * hop)))
    return [(hop * i, min(hop * i + WINDOW_SECONDS, duration)) for i in range(count)] if duration > 0 else []


def measured_windows(duration: float) -> list[tuple[float, float]]:
    """What `Audio.probe` listens to; the last window ends where the recording does."""
    if duration <= MEASURED_SECONDS:
        # Past the stated end, too: headers may say less than there is.
        return [(0.0, MEASURED_SECONDS)]
    length = MEASURED_SECONDS / _MEASURED_WINDOWS
    step = (duration - length) / (_MEASURED_WINDOWS - 1)
    return [(step * i, step * i + length) for i in range(_MEASURED_WINDOWS)]
