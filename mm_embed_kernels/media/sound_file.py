"""Streams of sound, opened by FFmpeg (PyAV), or by libsndfile (soundfile) where FFmpeg refuses them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

from mm_embed_kernels.errors import SampleError
from mm_embed_kernels.media.library_errors import library_error
from mm_embed_kernels.media.mpeg_audio import end_of_tags
from mm_embed_kernels.media.ogg_links import open_part
from mm_embed_kernels.media.recordings import FFmpegRecording, Recording, open_sound_container
from mm_embed_kernels.media.resampling import LAYOUTS
from mm_embed_kernels.media.sound_data import peek

_BLOCK_FRAMES = 4_096


@contextmanager
def open_recording(stream: BinaryIO) -> Iterator[Recording]:
    """Open a seekable stream at its beginning.

    Raises:
        SampleError: ``truncated``, ``no_audio``, ``unsupported_format`` or ``decode_error``.
    """
    import av

    try:
        container, stream = _open_container(stream)
    except (av.FFmpegError, ValueError, OverflowError) as error:
        stream.seek(0)
        yield SoundFileRecording(stream, library_error(error, "FFmpeg cannot open it"))
        return
    with container:
        try:
            recording: Recording = FFmpegRecording(container, stream)
        except SampleError as error:
            stream.seek(0)
            recording = SoundFileRecording(stream, error)
        yield recording


def _open_container(stream: BinaryIO) -> tuple[Any, BinaryIO]:
    """Return a container and its stream: without the tags before it, where they confuse FFmpeg."""
    import av

    try:
        return open_sound_container(stream), stream
    except (av.FFmpegError, ValueError, OverflowError):
        with peek(stream) as size:
            begins = end_of_tags(stream)
        if not 0 < begins < size:
            raise
        untagged = open_part(stream, begins, size)
        return open_sound_container(untagged), untagged


class SoundFileRecording(Recording):
    """A recording that libsndfile reads."""

    decoder = "libsndfile"

    def __init__(self, stream: BinaryIO, refused: SampleError) -> None:
        """Open a stream.

        Args:
            stream: seekable, at its beginning.
            refused: why FFmpeg does not read it.

        Raises:
            SampleError: of the class of `refused`, where libsndfile does not read it either.
        """
        import soundfile

        try:
            self._file = soundfile.SoundFile(stream)
        except (soundfile.SoundFileError, TypeError, ValueError) as error:
            cause = str(getattr(error, "error_string", error)).rstrip(".")
            # What libsndfile says of an MP3 without a whole frame.
            cause = "no frame of it is whole" if "not exist" in cause else cause
            also = f"{refused.message}; nor does libsndfile read it ({cause})"
            raise SampleError(refused.error_class, also) from refused
        self.codec, self.channels = self._file.subtype.lower(), self._file.channels
        self.sample_rate, self.bit_rate = self._file.samplerate, None
        # Libsndfile takes the time of an Ogg's last page for its length, but times need not begin at zero.
        self.promised = self._file.format != "OGG"

    def duration(self) -> float:
        return float(self._file.frames / self.sample_rate) if self.promised else self.count()

    def count(self) -> float:
        return float(sum(frame.samples for _, frame in self.frames()) / self.sample_rate)

    def frames(self, start: float = 0.0, end: float | None = None) -> Iterator[tuple[float, Any]]:
        import soundfile
        from av import AudioFrame

        layout = LAYOUTS[self.channels - 1]
        first = min(round(start * self.sample_rate), self._file.frames)
        last = self._file.frames if end is None else min(round(end * self.sample_rate), self._file.frames)
        try:
            self._file.seek(first)
            for number in range(first, last, _BLOCK_FRAMES):
                samples = self._file.read(min(_BLOCK_FRAMES, last - number), dtype="float32", always_2d=True)
                if not len(samples):
                    return
                frame = AudioFrame.from_ndarray(samples.reshape(1, -1), format="flt", layout=layout)
                frame.sample_rate = self.sample_rate
                yield number / self.sample_rate, frame
        except soundfile.SoundFileError as error:
            raise library_error(error, "the recording is damaged") from error
