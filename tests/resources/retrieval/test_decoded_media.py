"""Media that a loader decodes, compared with Pillow's and soundfile's reading of the same files."""

from __future__ import annotations

import base64
import io
import re
from typing import Any

import numpy as np
import pytest
import soundfile  # noqa: TID253
from PIL import Image  # noqa: TID253

from mm_embed_kernels.errors import UserError
from mm_resources.retrieval.feature_store import FeatureStore
from tests.resources.media_sets import COLOURS, RATE, SECONDS, SIDE


def plain_and_decoded(features: FeatureStore, modality: str, **more: Any) -> list[tuple[bytes, Any]]:
    """Return each medium as bytes and as it is decoded, row by row."""
    chosen = features.training_set("things@v1", modality=modality)
    plain = {
        name: data
        for batch in chosen.to_torch(media=True)
        for name, data in zip(batch["feature_id"], batch["media"], strict=True)
    }
    return [
        (plain.pop(name), medium)
        for batch in chosen.to_torch(batch_size=16, shuffle=True, **more)
        for name, medium in zip(batch["feature_id"], batch["media"], strict=True)
    ]


@pytest.mark.parametrize("sandbox", [False, True])
def test_pictures_as_tensors(things: FeatureStore, sandbox: bool) -> None:
    import torch

    found = plain_and_decoded(things, "image", decode="torch", sandbox=sandbox)
    assert len(found) == 40
    for data, tensor in found:
        assert (tensor.dtype, tuple(tensor.shape)) == (torch.uint8, (3, SIDE, SIDE))
        expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
        assert np.array_equal(np.moveaxis(tensor.numpy(), 0, -1), expected)


def test_pictures_of_pillow(things: FeatureStore) -> None:
    for data, picture in plain_and_decoded(things, "image", decode="pil"):
        assert isinstance(picture, Image.Image)
        assert np.array_equal(np.asarray(picture), np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))


@pytest.mark.parametrize("sandbox", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_sounds_as_tensors(things: FeatureStore, sandbox: bool) -> None:
    """At 16 kHz; the loudest frequency is that of the file, by a second transform."""
    found = plain_and_decoded(things, "audio", decode="torch", sandbox=sandbox)
    assert len(found) == 40
    for data, tensor in found:
        assert abs(len(tensor) - 16_000 * SECONDS) <= 1
        wave, rate = soundfile.read(io.BytesIO(data))
        assert rate == RATE
        expected = np.abs(np.fft.rfft(wave)).argmax() / (len(wave) / rate)
        assert np.abs(np.fft.rfft(tensor.numpy())).argmax() / SECONDS == pytest.approx(expected, abs=8)


def test_several_modalities_are_decoded_side_by_side(things: FeatureStore) -> None:
    chosen = things.training_set("things@v1", modality=["image", "audio"], split="train")
    batch = next(iter(chosen.to_torch(batch_size=4, decode="torch")))
    assert [tuple(each.shape) for each in batch["image__media"]] == [(3, SIDE, SIDE)] * 4
    assert {each.dim() for each in batch["audio__media"]} == {1}
    with pytest.raises(UserError, match="decode='pil' does not decode audio__media"):
        chosen.to_torch(decode="pil")
    with pytest.raises(UserError, match="decode is 'jpeg'; give 'pil', 'torch' or None"):
        chosen.to_torch(decode="jpeg")


def test_transforms_get_what_is_decoded(things: FeatureStore) -> None:
    chosen = things.training_set("things@v1", modality="image")

    def mean_of(row: dict[str, Any]) -> dict[str, Any]:
        return {"mean": row["media"].float().mean(dim=(1, 2)), "label": row["label"]}

    for batch in chosen.to_torch(batch_size=8, decode="torch", transform=mean_of):
        assert batch["mean"].shape == (8, 3)
        for mean, label in zip(batch["mean"], batch["label"], strict=True):
            assert mean.numpy() == pytest.approx(COLOURS[label], abs=12)


def test_a_notebook_shows_pictures_and_players(things: FeatureStore) -> None:
    chosen = things.training_set("things@v1", modality=["image", "audio"], split="train")
    page = chosen._repr_html_()
    pictures = re.findall(r'<img src="data:image/jpeg;base64,([^"]+)"', page)
    sounds = re.findall(r'<audio controls preload="none" src="data:audio/x-wav;base64,([^"]+)"', page)
    assert len(pictures) == len(sounds) == 8
    assert page.startswith("<p>&lt;TrainingSet things@v1 image, audio, 30 rows")
    rows = chosen.reader()(np.arange(8)).to_pylist()
    for row, picture, tone in zip(rows, pictures, sounds, strict=True):
        pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(picture))).convert("RGB"))
        assert pixels.mean(axis=(0, 1)) == pytest.approx(COLOURS[row["image__label"]], abs=14)
        wave, _ = soundfile.read(io.BytesIO(base64.b64decode(tone)))
        assert len(wave) == RATE * SECONDS
