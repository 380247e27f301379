"""Signals of a recording, measured in blocks: loudness, peak, clipping, silence, speech and fingerprint."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import numpy as np

from mm_embed_kernels.media.recordings import Recording
from mm_embed_kernels.media.resampling import LAYOUTS, Converter, format_of, resample_frames
from mm_embed_kernels.signals import speech
from mm_embed_kernels.similarity import acoustic_fingerprint

# The largest 16-bit value but one: where a converter or an editor clips.
_FULL_SCALE = 1 - 2 / 2**15
# Threshold of FFmpeg's `silencedetect`: -60 dBFS.
_SILENCE = 10 ** (-60 / 20)
# BS.1770's absolute gate, which FFmpeg reports for sound that never exceeds it.
_GATE = -70.0


class LoudnessMeter:
    """Measures parts of a recording and accumulates their signals.

    Attributes:
        seconds: measured seconds.
        end: end of the last measured frame, seconds.
        samples: measured samples of all channels.
        finite: those of them that are numbers.
    """

    def __init__(self) -> None:
        self.seconds = self.end = 0.0
        self.samples = self.finite = 0
        self._clipped = self._frames = self._silent = self._spoken = 0
        self._peak = 0.0
        self._loudness = _Loudness()
        self._print = b""

    def measure(self, reader: Recording, start: float, end: float) -> None:
        """Add the part between two times, in seconds."""
        samples = np.concatenate(
            [
                np.zeros(0, np.float32),
                *resample_frames(
                    self._measure_frames(reader.frames(start, end), start, end, reader.channels),
                    speech.RATE,
                    start,
                    end,
                ),
            ]
        )
        whole_recording = end - start >= acoustic_fingerprint.SECONDS
        sign = acoustic_fingerprint.fingerprint if whole_recording else acoustic_fingerprint.window
        self._print += sign(samples).astype("<u4").tobytes()
        whole = np.pad(samples, (0, -len(samples) % speech.FRAME)).reshape(-1, speech.FRAME)
        # The level of an incomplete last frame is that of its samples, without the padding.
        counts = np.minimum(speech.FRAME, len(samples) - speech.FRAME * np.arange(len(whole)))
        level = np.sqrt(np.square(whole, dtype=np.float64).sum(axis=1) / counts)
        self._frames += len(whole)
        self._silent += int((level < _SILENCE).sum())
        self._spoken += int((speech.probabilities(samples) >= speech.THRESHOLD).sum())

    def _measure_frames(
        self, frames: Iterator[tuple[float, Any]], start: float, end: float, channels: int
    ) -> Iterator[tuple[float, Any]]:
        """Pass the frames on and measure them, at their own rate and channels."""
        # Interleaved: PyAV 18 crashes on the planes of frames of eight channels and more.
        samples = Converter(format="flt")
        for begin, frame in frames:
            frame.pts = None
            for out in samples.push(frame, begin):
                heard = out.to_ndarray()
                self.samples += heard.size
                finite = int(np.isfinite(heard).sum())
                self.finite += finite
                if finite < heard.size:
                    heard = np.nan_to_num(heard, nan=0.0, posinf=1.0, neginf=-1.0)
                    # The filters of the loudness would remember what is no number for ever.
                    out = _frame_of(heard, out)
                values = np.abs(heard)
                self._clipped += int((values >= _FULL_SCALE).sum())
                self._peak = max(self._peak, float(values.max(initial=0.0)))
                self._loudness.add(out, channels)
            self.end = min(end, begin + frame.samples / frame.sample_rate)
            self.seconds += self.end - max(start, begin)
            yield begin, frame

    def signals(self) -> dict[str, Any]:
        """Return the signals of all measured parts, by column of `Audio.signals`."""
        return {
            "loudness": self._loudness.value,
            "peak": self._peak,
            "clipping_share": self._clipped / max(1, self.samples),
            "not_finite_share": 1 - self.finite / self.samples if self.samples else 0.0,
            "silence_share": self._silent / max(1, self._frames),
            "speech_share": self._spoken / max(1, self._frames),
            "measured_seconds": round(self.seconds, 6),
            "fingerprint": self._print,
        }


def _frame_of(samples: np.ndarray[Any, Any], like: Any) -> Any:
    """Return a frame of interleaved float samples with the rate and the channels of another."""
    import av

    frame = av.AudioFrame.from_ndarray(samples, format="flt", layout=like.layout)
    frame.sample_rate = like.sample_rate
    return frame


class _Loudness:
    """Integrated loudness in LUFS by FFmpeg's `ebur128` (ITU-R BS.1770-4 with EBU R 128's gates)."""

    def __init__(self) -> None:
        self._graph: Any = None
        self._format: tuple[str, str, int] | None = None
        self._converter: Converter | None = None
        self._clock = 0
        self._last = _GATE

    @property
    def value(self) -> float | None:
        return self._last if self._last > _GATE else None

    def add(self, frame: Any, channels: int) -> None:
        """Add a frame of a recording that has so many channels at most: others may follow with more."""
        if self._format is None:
            sample, layout, rate = format_of(frame)
            wide = frame.layout.nb_channels < channels <= len(LAYOUTS)
            self._format = (sample, LAYOUTS[channels - 1] if wide else layout, rate)
        if self._converter is None and format_of(frame) != self._format:
            sample, layout, rate = self._format
            self._converter = Converter(format=sample, layout=layout, rate=rate)
        for part in [frame] if self._converter is None else self._converter.push(frame, 0.0):
            self._push(part)

    def _push(self, frame: Any) -> None:
        import av

        if self._graph is None:
            self._graph = _graph(frame)
        frame.pts, frame.time_base = self._clock, Fraction(1, frame.sample_rate)
        self._clock += frame.samples
        self._graph.push(frame)
        while True:
            try:
                measured = self._graph.pull()
            except (av.BlockingIOError, av.EOFError):
                return
            self._last = float(measured.metadata.get("lavfi.r128.I", self._last))


def _graph(frame: Any) -> Any:
    """Return FFmpeg's filter graph from frames like this one to their loudness."""
    import av

    graph = av.filter.Graph()
    source = graph.add_abuffer(
        sample_rate=frame.sample_rate,
        format=frame.format.name,
        layout=frame.layout.name,
        time_base=Fraction(1, frame.sample_rate),
    )
    meter, sink = graph.add("ebur128", "metadata=1"), graph.add("abuffersink")
    source.link_to(meter)
    meter.link_to(sink)
    graph.configure()
    return graph
