"""Sound tracks of videos, as samples of their own that share an entity with their videos."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import BinaryIO

from mm_embed_kernels.errors import SampleError
from mm_embed_kernels.media.sound_copy import copy_sound
from mm_embed_kernels.media.tracks import has_sound
from mm_embed_kernels.modalities import Media
from mm_embed_kernels.sandbox.sandbox import Limits, shared_sandbox
from mm_embed_kernels.spec.source_spec import SourceSpec
from mm_resources.sources.base import Listed
from mm_resources.sources.files import Files
from mm_resources.storage.store import LARGE_BYTES

# A track is never larger than its video; one of this size is sound of days.
_TRACK_BYTES = 16 << 30


class SoundTracks(Files):
    """The first sound track of each video of the source that ``track_of`` names, copied without re-encoding.

    Sound that no container takes as it is, is decoded. Sound is detected in each container's table when the
    version is frozen. Videos without sound, and files that are no videos, are not listed: they belong to the
    cell of the videos.
    """

    name = "tracks"
    # Read one after the other: a thread of the fetch's pool must not start sandboxed children, which would
    # end with it.
    single_object = False

    @classmethod
    def accepts(cls, spec: SourceSpec) -> bool:
        return spec.track_of is not None

    def list(self) -> Iterator[Listed]:
        return (item for item in super().list() if item.error is None and self._has_sound(item))

    def _has_sound(self, item: Listed) -> bool:
        try:
            with self.open(item.uri, item.locator) as stream:
                return has_sound(stream) is not False
        except SampleError as error:
            item.error = error  # unknown, which is recorded
        except OSError:
            raise  # of the network: the source is listed again
        except Exception as error:  # noqa: BLE001 - whatever a file's table causes is that file's alone
            item.error = SampleError("decode_error", f"{item.key}: {type(error).__name__}: {error}")
        return True

    def fetch(self, uri: str, locator: str) -> bytes | BinaryIO:
        with tempfile.TemporaryDirectory(prefix="mm-track-") as folder:
            copy, track = Path(folder) / "video", Path(folder) / "track"
            video = super().fetch(uri, locator)
            data: Media = video if isinstance(video, bytes) else copy
            if not isinstance(video, bytes):
                with video:
                    if "://" in uri:
                        with copy.open("wb") as sink:
                            shutil.copyfileobj(video, sink, LARGE_BYTES)
                    else:
                        data = Path(video.name)
            with track.open("w+b", buffering=0) as sink:
                (outcome,) = shared_sandbox(Limits(file_bytes=_TRACK_BYTES)).map(copy_sound, [(data, sink)])
            if isinstance(outcome, SampleError):
                raise outcome
            # An open file outlives its name.
            return track.open("rb") if os.path.getsize(track) > LARGE_BYTES else track.read_bytes()

    @property
    def flavour(self) -> str:
        # Another FFmpeg may write another container around the same sound. 2: from the time zero on; codings
        # that Matroska does not take. 3: without what an edit list hides.
        return f"{self.name}:3:av-{version('av')}"
