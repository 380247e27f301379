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
from tests.kernels.checkpoints import (
    clap_model,
    open_clip_model,
    sentence_transformer,
    siglip2_model,
    wav2vec2,
)
from tests.kernels.media_samples import encode_image, picture
from tests.kernels.sounds import encode_audio, noise
from tests.kernels.videos import encode_video, pan, still

KINDS = ["st", "open_clip", "open_clip_frames", "torchaudio", "clap"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("models")
    clip = open_clip_model(root / "clip")
    return {
        "st": sentence_transformer(root / "st"),
        "open_clip": clip,
        "open_clip_frames": clip,
        "torchaudio": wav2vec2(root / "wav2vec2"),
        "clap": clap_model(root / "clap-of-sounds"),
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


def test_words_find_sounds(tmp_path: Path) -> None:
    """Words are taught to a checkpoint of random weights, and find their sounds; a batch changes no vector."""
    import torch
    from transformers import ClapModel

    folder = clap_model(tmp_path / "clap")
    seconds = np.linspace(0, 3, 3 * 48_000, endpoint=False, dtype=np.float32)
    sounds = [
        encode_audio(np.sin(2 * np.pi * 440 * seconds), rate=48_000),
        encode_audio(noise(3.0, rate=48_000, seed=5), rate=48_000),
        encode_audio(np.sign(np.sin(2 * np.pi * 3 * seconds)) * (seconds % 1 < 0.1), rate=48_000),
    ]
    words = ["the ship at sea", "coffee", "a dog"]
    untaught: Any = create(f"clap:{folder}", threads=2)
    waves = np.stack([untaught.decode(data, "seconds=0.000-3.000") for data in sounds])
    vectors = untaught.embed(waves)
    model = ClapModel.from_pretrained(folder).eval()
    kept: list[Any] = []
    hook = model.text_projection.linear2.register_forward_hook(lambda _m, given, _o: kept.append(given[0]))
    tokens = untaught._tokenizer(words, padding=True, return_tensors="pt")
    with torch.inference_mode():
        model.get_text_features(input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"])
        hook.remove()
        layer = model.text_projection.linear2
        taught = torch.linalg.lstsq(kept[0], torch.from_numpy(vectors) - layer.bias).solution
        layer.weight.copy_(taught.T)
    model.save_pretrained(folder)

    embedder = create(f"clap:{folder}", threads=2)
    found = embedder.embed_text(words) @ embedder.embed(waves).T
    assert found.argmax(axis=1).tolist() == [0, 1, 2]
    np.testing.assert_allclose(np.diag(found), 1, atol=1e-3)
    np.testing.assert_allclose(embedder.embed_text(words[2:]), embedder.embed_text(words)[2:], atol=1e-5)
    silence = embedder.embed(np.zeros((1, 480_000), np.float32))
    assert np.isfinite(silence).all()
    long = embedder.embed_text([" ".join(["cat"] * 500)])
    assert np.isfinite(long).all(), "cut to what the model reads"


def test_clap_of_the_library_gives_the_same_vector_and_fusion_is_not_drawn(tmp_path: Path) -> None:
    import torch
    from transformers import ClapFeatureExtractor, ClapModel

    folder = clap_model(tmp_path / "plain")
    wave = np.asarray(noise(4.0, rate=48_000, seed=1), np.float32)[:, 0]
    made = ClapFeatureExtractor.from_pretrained(folder)(wave, sampling_rate=48_000, return_tensors="pt")
    with torch.inference_mode():
        theirs = ClapModel.from_pretrained(folder).eval().get_audio_features(**made).pooler_output.numpy()
    padded = np.zeros((1, 480_000), np.float32)
    padded[0, : len(wave)] = wave
    np.testing.assert_allclose(create(f"clap:{folder}").embed(padded), theirs, atol=1e-4)

    fused = create(f"clap:{clap_model(tmp_path / 'fused', enable_fusion=True)}")
    batch = np.repeat(padded, 3, axis=0)
    np.testing.assert_allclose(fused.embed(batch), np.repeat(fused.embed(padded), 3, axis=0), atol=1e-4)
    settings = tmp_path / "plain" / "preprocessor_config.json"
    settings.write_text(settings.read_text().replace('"max_length_s": 10', '"max_length_s": 7'))
    with pytest.raises(UserError, match="hears 7 seconds; windows have 10"):
        _ = create(f"clap:{folder}").fingerprint


def test_siglip2_of_open_clip(tmp_path: Path) -> None:
    """Its structure as the pinned open_clip has it: another tower, tokenizer and preparation than CLIP's."""
    import open_clip
    import torch

    folder = siglip2_model(tmp_path / "siglip2")
    embedder: Any = create(f"open_clip:{folder}", threads=2)
    assert (embedder.dimension, embedder.side) == (64, 160)
    model, _, transform = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}")
    with torch.inference_mode():
        picture_vector = model.eval().encode_image(transform(picture())[None], normalize=True).numpy()
        words = model.encode_text(tokenizer(["a ship at sea"]), normalize=True).numpy()
    assert float((embedder.embed(embedder.prepare(picture())[None]) @ picture_vector.T)[0, 0]) > 0.999
    np.testing.assert_allclose(embedder.embed_text(["a ship at sea"]), words, atol=1e-5)


def test_vectors_are_cut_to_their_first_values(folders: dict[str, Path]) -> None:
    texts = ["the cat sat on the mat", "a ship at sea"]
    whole, cut = made("st", folders), create(f"st:{folders['st']}#8")
    first = whole.embed(texts)[:, :8]
    expected = first / np.linalg.norm(first, axis=1, keepdims=True)
    assert (cut.dimension, cut.name) == (8, f"st:{folders['st']}#8")
    np.testing.assert_allclose(cut.embed(texts), expected, atol=1e-5)
    query = whole.embed_text(["cat"])[:, :8]
    np.testing.assert_allclose(cut.embed_text(["cat"]), query / np.linalg.norm(query), atol=1e-5)
    assert cut.weights_hash == whole.weights_hash
    assert len({each.fingerprint for each in (whole, cut, create(f"st:{folders['st']}#9"))}) == 3
    assert (cut.space, whole.space.startswith("st-")) == (f"{whole.space}-8", True)
    for wrong in ("0", "24", "100"):
        with pytest.raises(UserError, match="have 24 values; #N keeps fewer"):
            _ = create(f"st:{folders['st']}#{wrong}").fingerprint


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
