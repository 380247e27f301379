"""Chained Ogg files, whose recordings are played one after another."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO

from mm_embed_kernels.errors import SampleError
from mm_embed_kernels.media.containers import ends_early
from mm_embed_kernels.media.media_type import Media, content_key
from mm_embed_kernels.media.ogg_links import open_part
from mm_embed_kernels.media.recordings import SLACK_SECONDS, Recording
from mm_embed_kernels.media.sound_file import open_recording


@dataclass(frozen=True)
class _Link:
    """A link: offsets of its bytes, seconds at which its sound begins and ends."""

    start: int
    end: int
    begins: float
    ends: float


@dataclass(frozen=True)
class _Chain:
    """The links of a file, and the largest rate and number of channels among them."""

    links: list[_Link]
    codec: str
    decoder: str
    sample_rate: int
    channels: int


class ChainedRecording(Recording):
    """The links of a chained Ogg file as one recording."""

    def __init__(self, data: Media, stream: BinaryIO, links: list[tuple[int, int]]) -> None:
        """Measure the links, unless they are those of the last file.

        Args:
            data: the file.
            stream: a seekable stream over it.
            links: from `find_links`.

        Raises:
            SampleError: as `open_recording`.
        """
        self._stream = stream
        key = content_key(data)
        if key not in _chains:
            _chains.clear()
            _chains[key] = self._measure_links(links)
        chain = _chains[key]
        self._links = chain.links
        self.decoder, self.codec = chain.decoder, chain.codec
        self.sample_rate, self.channels = chain.sample_rate, chain.channels
        seconds = self.duration()
        self.bit_rate = round(8 * links[-1][1] / seconds) if seconds else None
        self.promised, self.cut = False, ends_early(stream)

    def _measure_links(self, parts: list[tuple[int, int]]) -> _Chain:
        links, clock, first, rate, channels = [], 0.0, None, 0, 0
        for number, (start, end) in enumerate(parts, 1):
            with self._open(start, end, number, len(parts)) as recording:
                first = first or (recording.codec, recording.decoder)
                rate, channels = max(rate, recording.sample_rate), max(channels, recording.channels)
                seconds = _end_of(recording)
            links.append(_Link(start, end, clock, clock + seconds))
            clock += seconds
        codec, decoder = first or ("", "")
        return _Chain(links, codec, decoder, rate, channels)

    @contextmanager
    def _open(self, start: int, end: int, number: int, count: int) -> Iterator[Recording]:
        try:
            with open_recording(open_part(self._stream, start, end)) as recording:
                yield recording
        except SampleError as error:
            where = f"recording {number} of {count} in this chained Ogg file, from byte {start:,} on"
            raise SampleError(error.error_class, f"{where}: {error.message}") from error

    def duration(self) -> float:
        return self._links[-1].ends

    def count(self) -> float:
        return self.duration()

    def length(self) -> float:
        return self.duration()

    def frames(self, start: float = 0.0, end: float | None = None) -> Iterator[tuple[float, Any]]:
        for number, link in enumerate(self._links, 1):
            if link.ends <= start or (end is not None and link.begins >= end):
                continue
            last = None if end is None or end >= link.ends else end - link.begins
            with self._open(link.start, link.end, number, len(self._links)) as recording:
                for begin, frame in recording.frames(max(0.0, start - link.begins), last):
                    yield begin + link.begins, frame
                self.damaged += recording.damaged


def _end_of(recording: Recording) -> float:
    """Return the second at which the last frame ends; the stated one may count what is not played."""
    stated, end = recording.duration(), 0.0
    for first in (max(0.0, stated - 1), 0.0):
        for begin, frame in recording.frames(first):
            end = begin + frame.samples / frame.sample_rate
        if abs(end - stated) <= SLACK_SECONDS:
            break
    return end


_chains: dict[Hashable, _Chain] = {}
