"""Plumbing tests of models from a hub or a folder, on checkpoints with random weights that the tests make."""

from __future__ import annotations

import hashlib
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mm_embed_kernels.embedders import Embedder, create, embedders, kind_of
from mm_embed_kernels.embedders.base import slug_of
from mm_embed_kernels.errors import UserError
from mm_embed_kernels.modalities import modalities
from tests.kernels.checkpoints import open_clip_model, sentence_transformer, wav2vec2
from tests.kernels.media_samples import encode_image, picture
from tests.kernels.sounds import encode_audio, noise
from tests.kernels.videos import encode_video, pan, still

KINDS = ["st", "open_clip", "open_clip_frames", "torchaudio"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("models")
    clip = open_clip_model(root / "clip")
    return {
        "st": sentence_transformer(root / "st"),
        "open_clip": clip,
        "open_clip_frames": clip,
        "torchaudio": wav2vec2(root / "wav2vec2"),
    }


def made(kind: str, folders: dict[str, Path]) -> Embedder:
    return create(f"{kind}:{folders[kind]}", threads=2)


def inputs(embedder: Embedder) -> Any:
    media = {
        "image": [encode_image(picture(seed=seed), "PNG") for seed in (0, 1)],
        "video": [encode_video(pan(1)), encode_video(pan(2))],
    }
    media["audio"] = [encode_audio(noise(seconds, seed=3)) for seconds in (0.7, 2.0)]
    if embedder.modality == "text":
        return ["the cat sat on the mat", "a ship at sea"]
    return np.stack([embedder.decode(data, "seconds=0.000-2.000") for data in media[embedder.modality]])


def test_all_kinds_are_tested_here() -> None:
    assert [name for name, kind in embedders().items() if kind.takes_model] == sorted(KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_vectors(kind: str, folders: dict[str, Path]) -> None:
    embedder = made(kind, folders)
    batch = inputs(embedder)
    vectors = embedder.embed(batch)
    assert vectors.shape == (2, embedder.dimension)
    assert vectors.dtype == np.float32
    assert np.isfinite(vectors).all()
    alone = np.concatenate([embedder.embed(batch[i : i + 1]) for i in range(2)])
    np.testing.assert_allclose(alone, vectors, atol=1e-4)
    assert not np.allclose(vectors[0], vectors[1], atol=1e-4)
    if embedder.input_shape is not None:
        assert (batch.shape[1:], str(batch.dtype)) == (embedder.input_shape, embedder.input_dtype)


@pytest.mark.parametrize("kind", KINDS)
def test_it_travels_to_workers_unloaded(kind: str, folders: dict[str, Path]) -> None:
    embedder = made(kind, folders)
    vectors = embedder.embed(inputs(embedder))
    sent = pickle.dumps(embedder)
    assert len(sent) < 20_000, "settings, no weights"
    other = pickle.loads(sent)
    assert (other.name, other.fingerprint, other.dimension) == (
        embedder.name,
        embedder.fingerprint,
        embedder.dimension,
    )
    np.testing.assert_allclose(other.embed(inputs(other)), vectors, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_the_weights_make_the_fingerprint_not_their_place(
    kind: str, folders: dict[str, Path], tmp_path: Path
) -> None:
    one = made(kind, folders)
    shutil.copytree(folders[kind], tmp_path / "moved")
    moved = create(f"{kind}:{tmp_path}/moved", threads=2)
    assert (moved.fingerprint, moved.space) == (one.fingerprint, one.space)
    assert moved.name != one.name
    weights = next((tmp_path / "moved").rglob("*.safetensors"))
    shutil.copytree(tmp_path / "moved", tmp_path / "changed")
    changed = tmp_path / "changed" / weights.relative_to(tmp_path / "moved")
    changed.write_bytes(changed.read_bytes()[:-4] + b"\0\0\0\x40")
    assert create(f"{kind}:{tmp_path}/changed").fingerprint != one.fingerprint


def test_text_and_pictures_and_video_share_a_space(folders: dict[str, Path]) -> None:
    pictures, video = made("open_clip", folders), made("open_clip_frames", folders)
    assert pictures.space == video.space
    assert pictures.fingerprint != video.fingerprint
    np.testing.assert_allclose(pictures.embed_text(["a cat"]), video.embed_text(["a cat"]), atol=1e-6)
    frame = np.asarray(picture((320, 240)))
    one = pictures.embed(pictures.decode(encode_image(picture((320, 240)), "PNG"), "full")[None])
    film = video.embed(
        video.decode(encode_video(still(frame), codec="ffv1", container="matroska"), "seconds=0.000-2.000")[
            None
        ]
    )
    assert float(one[0] @ film[0]) > 0.99


def test_open_clip_sees_what_its_own_transform_shows(folders: dict[str, Path], tmp_path: Path) -> None:
    """Our preparation in the sandbox, without torch, against open_clip's."""
    import open_clip
    import torch

    for mode in ("shortest", "squash"):
        folder = open_clip_model(tmp_path / mode, resize_mode=mode)
        embedder: Any = create(f"open_clip:{folder}")
        model, _, transform = open_clip.create_model_and_transforms(f"local-dir:{folder}")
        with torch.inference_mode():
            theirs = model.eval().encode_image(transform(picture())[None], normalize=True).numpy()
        assert float((embedder.embed(embedder.prepare(picture())[None]) @ theirs.T)[0, 0]) > 0.999, mode


def test_queries_and_documents_have_their_prompts(folders: dict[str, Path]) -> None:
    embedder = made("st", folders)
    np.testing.assert_allclose(embedder.embed_text(["cat"]), embedder.embed(["a cat"]), atol=1e-5)


def test_pickled_weights_are_read_where_there_are_no_safetensors(tmp_path: Path) -> None:
    safe, pickled = (
        create(f"torchaudio:{wav2vec2(tmp_path / 'safe')}"),
        create(f"torchaudio:{wav2vec2(tmp_path / 'pickled', pickled=True)}"),
    )
    np.testing.assert_allclose(safe.embed(inputs(safe)), pickled.embed(inputs(pickled)), atol=1e-6)
    shutil.copy(tmp_path / "pickled" / "model.pt", tmp_path / "safe" / "other.pt")
    assert [path.suffix for path in create(f"torchaudio:{tmp_path}/safe").weights] == [
        ".json",
        ".safetensors",
    ]


def test_a_hubs_cache_is_used_and_held_against_its_hashes(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The layout in which huggingface_hub keeps what it has downloaded: names are links to bytes, by their sha256."""
    import huggingface_hub.constants

    revision = "0123456789abcdef0123456789abcdef01234567"
    cache = tmp_path / "models--tests--clip"
    (cache / "blobs").mkdir(parents=True)
    (cache / "snapshots" / revision).mkdir(parents=True)
    for path in folders["open_clip"].iterdir():
        blob = cache / "blobs" / hashlib.sha256(path.read_bytes()).hexdigest()
        shutil.copy(path, blob)
        (cache / "snapshots" / revision / path.name).symlink_to(blob)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub._snapshot_download.constants.HF_HUB_CACHE", str(tmp_path))
    assert create(f"open_clip:tests/clip@{revision}").fingerprint == made("open_clip", folders).fingerprint
    weights = (
        cache
        / "blobs"
        / hashlib.sha256((folders["open_clip"] / "open_clip_model.safetensors").read_bytes()).hexdigest()
    )
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x7f")
    from mm_embed_kernels.embedders import hub

    hub._snapshot.cache_clear()
    with pytest.raises(UserError, match="is damaged; delete it"):
        _ = create(f"open_clip:tests/clip@{revision}").fingerprint


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("st", "needs a model: st:ORG/NAME@REVISION"),
        ("conse:mine", "brings its own model: write conse"),
        ("word2vec:x", "no embedder is named 'word2vec'"),
    ],
)
def test_names_that_make_no_sense(name: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        kind_of(name)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("st:/not/there", "there is no folder /not/there"),
        ("open_clip:models/../x y", "neither ORG/NAME@REVISION nor an absolute path"),
        ("st:./mine", "absolute path"),
        (
            "st:tests/absent@v1",
            "cannot be reached and tests/absent@v1 is not among the models on this machine",
        ),
        ("torchaudio:WAV2VEC3", "has no speech model WAV2VEC3; it has .*WAV2VEC2_BASE"),
    ],
)
def test_a_missing_model_is_one_line(name: str, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match=words) as caught:
        _ = create(name).fingerprint
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", KINDS)
def test_a_folder_that_holds_no_model_is_one_line(kind: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no weights") as caught:
        _ = create(f"{kind}:{tmp_path}").fingerprint
    assert "\n" not in str(caught.value)
    (tmp_path / "model.safetensors").write_bytes(b"x")
    with pytest.raises(UserError, match="cannot be read"):
        _ = create(f"{kind}:{tmp_path}").dimension


def test_names_become_parts_of_table_names() -> None:
    assert slug_of("conse_frames") == "conse_frames"
    one, other = slug_of("st:/models/a b"), slug_of("st:/models/a_b")
    assert one != other
    assert all(
        set(item) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")
        for item in (one, other)
    )
    assert len(slug_of("open_clip:" + "x" * 300)) < 80


def test_every_modality_has_a_primary_embedder_of_each_profile() -> None:
    for name, modality in modalities().items():
        for profile in ("bundled", "hub"):
            assert kind_of(modality.primary(profile)).modality == name
        # Pages of documents are read by bundled models in both profiles.
        assert kind_of(modality.primary("hub")).takes_model is (name != "document")
