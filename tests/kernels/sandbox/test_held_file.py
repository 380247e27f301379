"""Large blobs, which a child is handed as open files: they are read as their bytes are."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mm_embed_kernels.embedders import create
from mm_embed_kernels.media.media_type import Media, open_media
from mm_embed_kernels.media.sound_copy import copy_sound
from mm_embed_kernels.modalities import get
from mm_embed_kernels.sandbox.sandbox import Limits, Sandbox
from tests.kernels.sounds import encode_audio, noise
from tests.kernels.videos import encode_video, pan


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    opened = Sandbox(Limits(item_seconds=60.0, file_bytes=1 << 20))
    yield opened
    opened.close()


def probe(modality: str, data: Media) -> dict[str, Any]:
    return get(modality).probe(data)  # type: ignore[arg-type]


def decode(embedder: str, data: Media, span: str) -> Any:
    return create(embedder).decode(data, span)  # type: ignore[arg-type]


def read_twice(data: Media) -> list[Any]:
    """Read by two streams in turn, and once more from the end."""
    with open_media(data) as one, open_media(data) as other:
        found: list[Any] = [one.read(3), other.read(5), one.read(3), other.read(2)]
        one.seek(-4, io.SEEK_END)
        return [*found, one.read(), other.tell(), Path(str(data)).name if isinstance(data, Path) else None]


@pytest.mark.parametrize(("modality", "embedder"), [("audio", "aisfx"), ("video", "conse_frames")])
def test_a_file_is_decoded_as_its_bytes_are(
    modality: str, embedder: str, sandbox: Sandbox, tmp_path: Path
) -> None:
    if modality == "audio":
        data = encode_audio(noise(2.0, 16_000), "FLAC", 16_000)
    else:
        data = encode_video(pan(rate=10, size=(160, 120)), rate=10)
    path = tmp_path / "blob"
    path.write_bytes(data)
    rows = sandbox.map(probe, [(modality, path), (modality, data), (modality, path)])
    assert rows[0] == rows[1] == rows[2]
    spans = ["seconds=0-1", "seconds=0.5-1.5", "seconds=0-1"]
    of_path = sandbox.map(decode, [(embedder, path, span) for span in spans])
    of_bytes = sandbox.map(decode, [(embedder, data, span) for span in spans])
    for one, other in zip(of_path, of_bytes, strict=True):
        assert isinstance(one, np.ndarray)
        assert np.array_equal(one, other)
    assert not np.array_equal(of_path[0], of_path[1])


def test_streams_over_a_file_have_positions_of_their_own(sandbox: Sandbox, tmp_path: Path) -> None:
    path = tmp_path / "blob"
    path.write_bytes(b"0123456789")
    assert sandbox.map(read_twice, [(path,)]) == [[b"012", b"01234", b"345", b"56", b"6789", 7, "blob"]]


def write(sink: Any, count: int) -> int:
    return int(sink.write(bytes(count)))


def test_a_file_that_is_handed_over_is_written_within_its_bound(sandbox: Sandbox, tmp_path: Path) -> None:
    with (tmp_path / "sink").open("w+b", buffering=0) as sink:
        outcomes = sandbox.map(write, [(sink, 1 << 19), (sink, 1 << 20)])
    assert outcomes[0] == 1 << 19
    assert os.path.getsize(tmp_path / "sink") == 1 << 20


def test_descriptors_are_closed_after_their_items(sandbox: Sandbox, tmp_path: Path) -> None:
    path = tmp_path / "blob"
    path.write_bytes(b"0123456789")
    sandbox.map(read_twice, [(path,)] * 40)
    (after,) = sandbox.map(count_descriptors, [()])
    assert after < 20


def count_descriptors() -> int:
    import gc

    gc.collect()
    return len(os.listdir("/proc/self/fd"))


def test_the_sound_of_a_video_is_copied_alike_to_memory_and_to_a_file(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    data = encode_video(pan(rate=10, size=(160, 120)), rate=10, sound="aac")
    memory = io.BytesIO()
    copy_sound(data, memory)
    with (tmp_path / "track").open("w+b", buffering=0) as sink:
        assert sandbox.map(copy_sound, [(data, sink)]) == [None]
    assert (tmp_path / "track").read_bytes() == memory.getvalue()
