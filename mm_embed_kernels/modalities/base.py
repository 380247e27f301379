"""What a modality is: how its bytes are recognised, probed and cut into embeddable segments."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import pyarrow as pa

from mm_embed_kernels.contracts.contract import field
from mm_embed_kernels.errors import SampleError
from mm_embed_kernels.identity import fingerprint
from mm_embed_kernels.media.media_type import (
    Media,
    head_of,
)
from mm_embed_kernels.plugins import discover, pick

if TYPE_CHECKING:
    import numpy as np


# Signals of how a medium was read.
READING = [
    field("decoder", pa.string(), "library that read it: where the first one refuses, a second one is asked"),
    field(
        "read_share",
        pa.float64(),
        "how much of it could be read, 1 for all (see on_partial); null where it does not say how long it is",
    ),
]


@dataclass(frozen=True)
class Segment:
    """One embeddable unit.

    Attributes:
        span: place inside the blob, e.g. ``full``, ``chars=0-812``, ``seconds=0-10``.
        text: the segment's text, where it is text.
        cost: work units (characters, pixels, audio samples) by which worker shards are balanced.
    """

    span: str
    text: str | None = None
    cost: int = 1


# Longest side of a preview's picture, pixels; places of its waveform; characters of its snippet.
PREVIEW_SIDE, PREVIEW_PLACES, PREVIEW_CHARS = 192, 192, 400


@dataclass(frozen=True)
class Preview:
    """What a person sees of a sample in a report; at most one of them is set.

    Attributes:
        picture: uint8 [height, width, 3], RGB, no side longer than `PREVIEW_SIDE` times `frames`.
        wave: float32 [n <= PREVIEW_PLACES], loudest sample in each part of a sound, 0 to 1.
        text: its beginning.
        frames: pictures that stand side by side in `picture`.
    """

    picture: np.ndarray[Any, Any] | None = None
    wave: np.ndarray[Any, Any] | None = None
    text: str | None = None
    frames: int = 1


class Modality(ABC):
    """One kind of media. A subclass in a module of this package, or behind an ``mm.modalities`` entry point, is all
    that the platform needs to know of it.

    Attributes:
        name: the partition key.
        embedder: the primary embedder of the profile ``bundled``, whose weights come with pip.
        hub_embedder: that of the profile ``hub``, whose weights come from a model hub.
        signals: Arrow fields that `probe` measures beyond the shared media columns.
        libraries: packages whose version changes what `probe` and `segment` return.
        streams: whether `probe`, `segment` and the embedders' `decode` take a `Path` as well, and never hold a long medium
            in memory; a large blob of any other modality is read into memory.
        spoken: whether a transcriber can write down what is said in its segments.
        probe_version, segment_version: raised when the code changes its results.
        probe_seconds, segment_seconds: first guess of the cost of one sample; it decides between inline and Ray, while
            `mm backfill --plan` takes the ledger's rates where it has them.
    """

    name: ClassVar[str] = ""
    embedder: ClassVar[str] = ""
    hub_embedder: ClassVar[str] = ""
    signals: ClassVar[list[pa.Field]] = []
    libraries: ClassVar[tuple[str, ...]] = ()
    streams: ClassVar[bool] = False
    spoken: ClassVar[bool] = False
    probe_version: ClassVar[str] = "1"
    segment_version: ClassVar[str] = "1"
    probe_seconds: ClassVar[float] = 0.01
    segment_seconds: ClassVar[float] = 0.001

    @abstractmethod
    def claims(self, mime: str) -> bool:
        """Whether content of that media type belongs to this modality."""

    @abstractmethod
    def probe(self, data: bytes) -> dict[str, Any]:
        """Measure one blob: shared media columns and the modality's signals, by name.

        Runs inside the sandbox. Raises `SampleError` for bytes that cannot be read.
        """

    def probe_prefix(self, data: bytes) -> dict[str, Any]:
        """As `probe`, for a medium of which only the beginning can be read (``on_partial: keep_prefix``)."""
        return self.probe(data)

    @abstractmethod
    def segment(self, data: bytes) -> list[Segment]:
        """Cut one blob into embeddable units. Runs inside the sandbox."""

    def preview(self, data: bytes) -> Preview:
        """What a person sees of one blob, small and plain; runs inside the sandbox. By default nothing."""
        return Preview()

    def primary(self, profile: str) -> str:
        """Name of the primary embedder of a profile; what has none from a hub takes the bundled one."""
        return self.hub_embedder or self.embedder if profile == "hub" else self.embedder

    def fingerprint(self, kernel: str) -> str:
        """Fingerprint of this modality's ``probe`` or ``segment`` kernel."""
        return fingerprint(
            name=f"{kernel}:{self.name}",
            code_version={"probe": self.probe_version, "segment": self.segment_version}[kernel],
            libraries=self.libraries,
            output=[(item.name, str(item.type)) for item in self.signals] if kernel == "probe" else "spans",
        )

    def require(self, data: Media) -> str:
        """The media type by content, if it is this modality's.

        Raises:
            SampleError: ``zero_length``, ``truncated``, ``wrong_modality`` or ``unsupported_format``.
        """
        if not head_of(data):
            raise SampleError("zero_length", "the sample has no bytes")
        from mm_embed_kernels.media.tracks import lacks_table, media_type

        mime = media_type(data)
        if (self.claims("audio/mp4") or self.claims("video/mp4")) and lacks_table(data, mime):
            raise SampleError("truncated", "the file ends before its table of contents, or has none")
        if self.claims(mime):
            return mime
        other = modality_of(mime)
        if other:
            raise SampleError(
                "wrong_modality", f"declared as {self.name}, but the content is {mime} ({other})"
            )
        raise SampleError("unsupported_format", f"declared as {self.name}, but the content is {mime}")


def modalities() -> dict[str, Modality]:
    """All modalities, by name."""
    return {
        name: item() for name, item in discover("mm_embed_kernels.modalities", "modalities", Modality).items()
    }


def get(name: str) -> Modality:
    found: Modality = pick(modalities(), "modality", name)
    return found


def modality_of(mime: str) -> str | None:
    """The modality that claims a media type."""
    return next((item.name for item in modalities().values() if item.claims(mime)), None)
