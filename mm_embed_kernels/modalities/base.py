"""Base class of modalities: recognize the bytes of a medium, probe them, cut them into segments."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from mimetypes import MimeTypes
from typing import TYPE_CHECKING, Any, ClassVar

import pyarrow as pa

from mm_embed_kernels.contracts.contract import field
from mm_embed_kernels.errors import SampleError
from mm_embed_kernels.identity import fingerprint
from mm_embed_kernels.media.media_type import Media, head_of
from mm_embed_kernels.media.tracks import lacks_table, media_type
from mm_embed_kernels.plugins import discover, pick

if TYPE_CHECKING:
    import numpy as np


# Signals about the decoding itself, of images, audio and video.
DECODING_SIGNALS = [
    field("decoder", pa.string(), "library that decoded it; a second one is tried where the first one fails"),
    field(
        "read_share",
        pa.float64(),
        "decoded share, 1 for all of it (see on_partial); null where the medium does not state its length",
    ),
]


@dataclass(frozen=True)
class Segment:
    """One embeddable unit.

    Attributes:
        span: position inside the blob, e.g. ``full``, ``chars=0-812``, ``seconds=0-10``.
        text: text of the segment, for text.
        cost: work units (characters, pixels, audio samples) by which worker shards are balanced.
    """

    span: str
    text: str | None = None
    cost: int = 1


# Longest side of a preview's picture in pixels, points of its waveform, characters of its snippet.
PREVIEW_SIDE, PREVIEW_POINTS, PREVIEW_CHARS = 192, 192, 400


@dataclass(frozen=True)
class Preview:
    """Preview of a sample for a report; at most one of picture, wave and text is set.

    Attributes:
        picture: uint8 [height, width, 3], RGB, no side longer than `PREVIEW_SIDE` times `frames`.
        wave: float32 [n <= PREVIEW_POINTS], peak amplitude of each part of a sound, 0 to 1.
        text: beginning of the text.
        frames: number of pictures, from left to right, in `picture`.
    """

    picture: np.ndarray[Any, Any] | None = None
    wave: np.ndarray[Any, Any] | None = None
    text: str | None = None
    frames: int = 1


class Modality(ABC):
    """One kind of media.

    A subclass in a module of this package, or behind an ``mm.modalities`` entry point, is complete: nothing
    else has to be registered.

    Attributes:
        name: partition key.
        embedder: primary embedder of the profile ``bundled``, whose weights come with pip.
        hub_embedder: primary embedder of the profile ``hub``, whose weights come from a model hub.
        signals: Arrow fields that `probe` measures beyond the shared media columns.
        packed: for a signal that packs values into bytes, whether bytes are such.
        libraries: packages whose version changes the results of `probe` and `segment`.
        streams: whether `probe`, `segment` and the embedders' `decode` accept a `Path` as well as bytes, and
            never hold a long medium in memory; a large blob of any other modality is read into memory.
        spoken: whether its segments can be transcribed.
        probe_version, segment_version: raised when a change of the code changes results.
        probe_seconds, segment_seconds: initial estimate of the seconds per sample; it decides between inline
            and Ray, while `mm backfill --plan` uses the ledger's rates where it has them.
    """

    name: ClassVar[str] = ""
    embedder: ClassVar[str] = ""
    hub_embedder: ClassVar[str] = ""
    signals: ClassVar[list[pa.Field]] = []
    packed: ClassVar[dict[str, Callable[[bytes], bool]]] = {}
    libraries: ClassVar[tuple[str, ...]] = ()
    streams: ClassVar[bool] = False
    spoken: ClassVar[bool] = False
    probe_version: ClassVar[str] = "1"
    segment_version: ClassVar[str] = "1"
    probe_seconds: ClassVar[float] = 0.01
    segment_seconds: ClassVar[float] = 0.001

    @abstractmethod
    def claims(self, mime: str) -> bool:
        """Return whether content of a media type belongs to this modality."""

    @abstractmethod
    def probe(self, data: bytes) -> dict[str, Any]:
        """Measure one blob, inside the sandbox: shared media columns and the modality's signals, by name.

        Raises:
            SampleError: for bytes that cannot be read.
        """

    def probe_prefix(self, data: bytes) -> dict[str, Any]:
        """Measure one blob as `probe` does, or its readable beginning (``on_partial: keep_prefix``)."""
        return self.probe(data)

    @abstractmethod
    def segment(self, data: bytes) -> list[Segment]:
        """Cut one blob into embeddable units, inside the sandbox."""

    def preview(self, data: bytes) -> Preview:  # noqa: ARG002 - the base class has nothing to show
        """Render one blob for a report, inside the sandbox; empty by default."""
        return Preview()

    def cut(self, data: bytes, span: str) -> tuple[bytes, str]:  # noqa: ARG002 - the base class cuts nothing
        """Return a span of a blob as a medium of its own, and its suffix, such as ``flac``.

        Called inside the sandbox, for spans other than ``full``.

        Raises:
            SampleError: ``unsupported_format`` by default.
        """
        raise SampleError("unsupported_format", f"{self.name} has no media of spans; export whole samples")

    def canary(self) -> bytes:
        """Return a small blob that `probe` measures where its libraries work; by default none, empty."""
        return b""

    def primary(self, profile: str) -> str:
        """Name of a profile's primary embedder: the bundled one where the modality has none of a hub."""
        return self.hub_embedder or self.embedder if profile == "hub" else self.embedder

    def fingerprint(self, kernel: str) -> str:
        """Fingerprint of the modality's ``probe`` or ``segment`` kernel."""
        return fingerprint(
            name=f"{kernel}:{self.name}",
            code_version={"probe": self.probe_version, "segment": self.segment_version}[kernel],
            libraries=self.libraries,
            output=[(item.name, str(item.type)) for item in self.signals] if kernel == "probe" else "spans",
        )

    def require(self, data: Media) -> str:
        """Return the media type of a blob by its content, which must belong to this modality.

        Raises:
            SampleError: ``zero_length``, ``truncated``, ``wrong_modality`` or ``unsupported_format``.
        """
        if not head_of(data):
            raise SampleError("zero_length", "the sample has no bytes")
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
    """All modalities by name."""
    return {
        name: item() for name, item in discover("mm_embed_kernels.modalities", "modalities", Modality).items()
    }


def get(name: str) -> Modality:
    """Return the modality called `name`.

    Raises:
        UnknownPlugin: naming the modalities that exist.
    """
    modality: Modality = pick(modalities(), "modality", name)
    return modality


def modality_of(mime: str) -> str | None:
    """Name of the modality that claims a media type, or None."""
    return next((item.name for item in modalities().values() if item.claims(mime)), None)


def modality_of_name(name: str) -> str | None:
    """Name of the modality that the ending of a file stands for, the same on all machines, or None."""
    mime, _ = MimeTypes(filenames=()).guess_type(name)
    return modality_of(mime) if mime else None
