"""Sound tracks of videos, as samples of their own that are joined with their videos by entity."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import BinaryIO

from mm_embed_kernels.errors import SampleError
from mm_embed_kernels.media.tracks import has_sound
from mm_embed_kernels.media.video import copy_sound
from mm_embed_kernels.modalities import Media
from mm_embed_kernels.sandbox.sandbox import Limits, shared_sandbox
from mm_embed_kernels.spec.source_spec import SourceSpec
from mm_resources.sources.base import Listed
from mm_resources.sources.files import Files
from mm_resources.storage.store import LARGE_BYTES


class Tracks(Files):
    """``track_of`` names a source of videos: those with sound are listed again, and what is fetched is their first sound track.

    Whether there is sound is read from each container's table when the version is frozen; mute videos and what is no video are
    not listed, they are their own cell's. The track is copied, not coded anew.
    """

    name = "tracks"
    # One after the other: sandboxed children must not be started by a thread of the fetch's pool, with which they would die.
    whole = False

    @classmethod
    def accepts(cls, spec: SourceSpec) -> bool:
        return spec.track_of is not None

    def list(self) -> Iterator[Listed]:
        return (item for item in super().list() if item.error is None and self._sounds(item))

    def _sounds(self, item: Listed) -> bool:
        try:
            with self.open(item.uri, item.locator) as stream:
                return has_sound(stream) is not False
        except SampleError as error:
            item.error = error  # nobody knows whether it sounds: that is recorded
            return True

    def fetch(self, uri: str, locator: str) -> bytes | BinaryIO:
        with tempfile.TemporaryDirectory(prefix="mm-track-") as folder:
            film, track = Path(folder) / "film", Path(folder) / "track.mka"
            found = super().fetch(uri, locator)
            data: Media = found if isinstance(found, bytes) else film
            if not isinstance(found, bytes):
                with found:
                    if "://" in uri:
                        with film.open("wb") as sink:
                            shutil.copyfileobj(found, sink, LARGE_BYTES)
                    else:
                        data = Path(found.name)
            (outcome,) = shared_sandbox(Limits()).map(copy_sound, [(data, str(track))])
            if isinstance(outcome, SampleError):
                raise outcome
            # An open file outlives its name.
            return track.open("rb") if os.path.getsize(track) > LARGE_BYTES else track.read_bytes()

    @property
    def flavour(self) -> str:
        # Another FFmpeg may write another container around the same sound.
        return f"{self.name}:av-{version('av')}"
