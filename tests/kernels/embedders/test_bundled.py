"""The bundled text model for real; the only module here that loads torch."""

from __future__ import annotations

import pickle
import sys
from typing import Any

import numpy as np
import pytest
import torch  # noqa: TID253

from mm_embed_kernels.embedders import create, embedders
from mm_embed_kernels.embedders.base import Embedder
from mm_embed_kernels.embedders.minilm import MiniLM
from mm_embed_kernels.errors import SampleError
from mm_embed_kernels.plugins import UnknownPlugin
from tests.kernels.media_samples import ENGLISH, GERMAN, encode_image, picture
from tests.kernels.sounds import encode_audio, noise, tone

TEXTS = [
    ENGLISH,
    GERMAN,
    "A sailor watches the light of a tower on the coast.",
    "Interest rates rose again.",
    "x",
    "😀 " * 500,
]


@pytest.fixture(scope="module")
def minilm() -> Embedder:
    found = create("minilm", threads=2)
    found.load()
    return found


def test_unknown_embedder() -> None:
    with pytest.raises(UnknownPlugin, match="aisfx, clap, conse, conse_frames, minilm, muse, open_clip"):
        create("word2vec")


@pytest.mark.parametrize("name", [name for name, kind in embedders().items() if not kind.takes_model])
def test_declaration(name: str) -> None:
    found = create(name)
    assert found.__doc__
    assert found.weights_hash == create(name).weights_hash
    assert found.dimension > 0
    assert found.seconds > 0
    assert (found.input_shape is None) == (found.modality == "text")
    assert pickle.loads(pickle.dumps(found)).fingerprint == found.fingerprint


def test_image_and_text_share_a_space() -> None:
    assert create("conse").space == create("minilm").space
    assert create("conse").fingerprint != create("minilm").fingerprint


def test_vectors_have_unit_length_and_do_not_depend_on_their_batch(minilm: Embedder) -> None:
    vectors = minilm.embed(TEXTS)
    assert vectors.shape == (len(TEXTS), minilm.dimension)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    alone = np.stack([minilm.embed([text])[0] for text in reversed(TEXTS)])[::-1]
    assert float((vectors * alone).sum(axis=1).min()) > 1 - minilm.tolerance
    np.testing.assert_array_equal(minilm.embed_text(TEXTS), vectors)


def test_one_query_is_embedded_without_torch(minilm: Embedder, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = minilm.embed([*TEXTS, ""])
    with monkeypatch.context() as patched:
        patched.delitem(sys.modules, "torch")
        patched.setattr(MiniLM, "embed", None)
        alone = np.concatenate([minilm.embed_text([text]) for text in [*TEXTS, ""]])
    assert alone.dtype == np.float32
    np.testing.assert_allclose(alone, expected, atol=1e-6)


def test_meaning(minilm: Embedder) -> None:
    lighthouse, _, sailor, rates, *_ = minilm.embed(TEXTS)
    assert lighthouse @ sailor > lighthouse @ rates + 0.1


def decode(data: bytes) -> Any:
    return create("conse").decode(data, "full")


@pytest.mark.parametrize("size", [(320, 240), (1, 1), (3000, 2), (2, 900)])
def test_pictures_of_any_shape_become_model_inputs(size: tuple[int, int]) -> None:
    pixels = decode(encode_image(picture(size), "PNG"))
    assert pixels.shape == (224, 224, 3)
    assert pixels.dtype == np.uint8


def test_the_network_computes_here_what_torch_computes_on_a_device() -> None:
    from mm_embed_kernels.embedders import conse
    from mm_embed_kernels.inference.runtime import in_inference_mode

    pictures = np.stack(
        [decode(encode_image(picture(size), "PNG")) for size in ((320, 240), (90, 900), (500, 500))]
    )
    embedder = create("conse", threads=1)
    found = embedder.embed(pictures)
    here, _ = conse._model("cpu", 1)
    np.testing.assert_allclose(
        here(pictures), in_inference_mode(conse.torch_classifier("cpu"), 1)(pictures), atol=1e-5
    )
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)


def test_decoding_follows_orientation() -> None:
    from PIL import Image

    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned by 90 degrees clockwise
    turned = picture((400, 400)).transpose(Image.Transpose.ROTATE_90)
    one, other = (
        decode(encode_image(picture((400, 400)), "PNG")),
        decode(encode_image(turned, "PNG", exif=exif)),
    )
    assert np.abs(one.astype(int) - other.astype(int)).mean() < 1


def test_decoding_what_is_cut_short() -> None:
    """The rows that are there, for specs that keep them (the probe refuses it for the others)."""
    from mm_embed_kernels.media.image import read_picture

    data = encode_image(picture(), "BMP")
    half = data[: len(data) // 2]
    rows = read_picture(half, 512).rgb
    assert (rows.width, rows.height) == (320, 119)
    assert np.array_equal(decode(half), decode(encode_image(rows, "PNG")))
    with pytest.raises(SampleError, match="truncated"):
        decode(data[:60])


# -- sound


@pytest.fixture(scope="module")
def aisfx() -> Embedder:
    return create("aisfx", threads=2)


def heard(embedder: Embedder, *recordings: bytes) -> Any:
    vectors = embedder.embed(np.stack([embedder.decode(data, "seconds=0.000-10.000") for data in recordings]))
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_a_sound_is_nearest_to_its_copy(aisfx: Embedder) -> None:
    sounds = [noise(1.5, 44_100), tone(500, 1.5, 44_100), noise(0.2, 44_100, level=0.5)]
    vectors = heard(
        aisfx,
        *(encode_audio(item, "WAV", 44_100) for item in sounds),
        *(encode_audio(item / 2, "OGG", 44_100) for item in sounds),
    )
    assert vectors.shape == (6, 512)
    assert (vectors[3:] @ vectors[:3].T).argmax(axis=1).tolist() == [0, 1, 2]


def test_a_sounds_vector_does_not_depend_on_its_batch(aisfx: Embedder) -> None:
    recordings = [
        encode_audio(noise(seconds, 44_100, seed=i), "WAV", 44_100)
        for i, seconds in enumerate((0.3, 10.0, 4.0))
    ]
    together, alone = heard(aisfx, *recordings), np.concatenate([heard(aisfx, item) for item in recordings])
    assert float((together * alone).sum(axis=1).min()) > 1 - aisfx.tolerance


def test_what_follows_a_short_sound_is_not_heard(aisfx: Embedder) -> None:
    sound = noise(1.0, 44_100)
    padded = np.concatenate([sound, np.zeros((7 * 44_100, 1), np.float32)])
    one, other = heard(aisfx, encode_audio(sound, "WAV", 44_100), encode_audio(padded, "WAV", 44_100))
    assert one @ other > 0.9999


@pytest.mark.parametrize(
    "samples", [1, 51_199 - 1_024, 51_200 - 1_024, 51_200, 102_399, 102_400 - 1_024, 400_000, 441_000]
)
def test_a_sound_is_cut_where_nothing_more_sounds(aisfx: Embedder, samples: int) -> None:
    from mm_embed_kernels.embedders.aisfx import _model, _sounding_length, pool_blocks

    whole = np.zeros((1, 441_000), np.float32)
    whole[0, :samples] = np.random.default_rng(samples).uniform(-0.5, 0.5, samples)
    end = _sounding_length(whole)
    assert samples <= end < samples + 103_000
    model = _model(str(aisfx.weights[0]), "cpu")
    with torch.inference_mode():
        np.testing.assert_allclose(pool_blocks(whole[:, :end], *model), pool_blocks(whole, *model), atol=1e-6)


def test_mel_bands_sum_to_one() -> None:
    from mm_embed_kernels.embedders.aisfx import _mel_bank

    bank = _mel_bank()
    assert bank.shape == (1025, 96)
    np.testing.assert_allclose(bank.sum(axis=0), 1, atol=1e-5)
    assert (np.diff(bank.argmax(axis=0)) >= 0).all()


def test_decoding_sound(aisfx: Embedder) -> None:
    samples = aisfx.decode(encode_audio(noise(12.0, 8_000), "FLAC", 8_000), "seconds=8.000-12.000")
    assert (samples.dtype, samples.shape) == (np.float32, aisfx.input_shape)
    assert np.abs(samples[: 4 * 44_100]).max() > 0
    assert not samples[4 * 44_100 + 10 :].any()


def test_digital_silence_has_a_vector(aisfx: Embedder) -> None:
    """It is a sound that the rule `silent` judges, and no failure."""
    silence = aisfx.decode(encode_audio(np.zeros((8_000, 1))), "seconds=0.000-0.500")
    sound = aisfx.decode(encode_audio(noise(1.0)), "seconds=0.000-1.000")
    first, second = aisfx.embed(np.stack([silence, sound]))
    assert np.isfinite(first).all()
    assert np.linalg.norm(first) > 0
    assert float(first @ second) < 0.99 * np.linalg.norm(first) * np.linalg.norm(second)
