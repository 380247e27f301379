"""Sound tracks of videos as samples of their own."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest

from mm_embed_kernels.errors import SampleError, UserError
from mm_embed_kernels.media.tracks import has_sound, media_type
from mm_embed_kernels.modalities import get
from mm_embed_kernels.spec.dataset_spec import DatasetSpec, parse_spec
from mm_resources.registry.registry import Registry
from mm_resources.sources import open_source
from mm_resources.storage.store import Store
from tests.kernels.sounds import mux
from tests.kernels.videos import encode_video, pan

FILMS = {
    "mp4": ("libx264", "aac"),
    "matroska": ("libx264", "libopus"),
    "webm": ("libvpx", "libopus"),
    "mov": ("mpeg4", "aac"),
    "avi": ("mpeg4", "mp3"),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    clips = tmp_path / "clips"
    (clips / "loud").mkdir(parents=True)
    (clips / "loud" / "a.mp4").write_bytes(encode_video(pan(1), sound="aac"))
    (clips / "loud" / "b.mkv").write_bytes(encode_video(pan(2), "matroska", sound="libopus"))
    (clips / "mute.mp4").write_bytes(encode_video(pan(3)))
    (clips / "cut.mp4").write_bytes(encode_video(pan(1), sound="aac")[:-4_000])
    (clips / "text.mp4").write_text("no film at all")
    (clips / "away.mp4").symlink_to("/etc/hostname")
    return tmp_path


def spec_of(folder: Path, extra: str = "", track_of: str = "clips") -> DatasetSpec:
    text = f"""
name: films
version: v1
sources:
  - {{name: clips, modality: video, uri: "clips/**", label: {{from: parent_dir}}}}
  - {{name: sound, modality: audio, track_of: {track_of}}}
{extra}"""
    return parse_spec(text, "spec", str(folder))


def test_what_sounds_is_listed_with_its_videos_entity(folder: Path) -> None:
    spec, registry = spec_of(folder), Registry(Store(str(folder / "store")))
    registry.register(spec)
    assert [registry.listings.freeze(spec, source) for source in spec.sources] == ["", ""]
    videos = {row["key"]: row for row in registry.listings.listing(spec, "video").read_all().to_pylist()}
    sounds = {row["key"]: row for row in registry.listings.listing(spec, "audio").read_all().to_pylist()}
    assert len(videos) == 6
    assert set(sounds) == {"loud/a.mp4", "loud/b.mkv"}, "mute, broken and foreign files are the video cell's"
    for key, row in sounds.items():
        assert row["entity_id"] == videos[key]["entity_id"]
        assert row["sample_id"] != videos[key]["sample_id"]
        assert (row["label"], row["source_uri"]) == ("loud", videos[key]["source_uri"])
    (folder / "clips" / "later.mp4").write_bytes(encode_video(pan(4), sound="aac"))
    drifts = [str(registry.drifts.check(spec, source)) for source in spec.sources]
    assert drifts == ["source clips: 1 added (later.mp4)", ""], "said once"


def test_a_caption_means_the_video_not_its_track(folder: Path) -> None:
    (folder / "captions.jsonl").write_text('{"id": "c", "text": "a pan", "film": "a.mp4"}\n')
    spec = spec_of(
        folder,
        "  - {name: captions, modality: text, uri: captions.jsonl, record: {id: id, text: text, link: film}}\n",
    )
    registry = Registry(Store(str(folder / "store")))
    registry.register(spec)
    for source in spec.sources:
        registry.listings.freeze(spec, source)
    entity = {
        (name, row["key"]): row["entity_id"]
        for name in ("text", "video", "audio")
        for row in registry.listings.listing(spec, name).read_all().to_pylist()
    }
    assert entity["text", "c"] == entity["video", "loud/a.mp4"] == entity["audio", "loud/a.mp4"]


def fetched(folder: Path, path: str) -> Any:
    source = open_source(spec_of(folder).sources[1], {})
    assert source.name == "tracks"
    found = source.fetch(str(folder / "clips" / path), "")
    if isinstance(found, bytes):
        return found
    with found:
        return found.read()


@pytest.mark.parametrize("container", FILMS)
def test_a_track_is_copied_the_same_each_time(container: str, folder: Path) -> None:
    codec, sound = FILMS[container]
    (folder / "clips" / "film").write_bytes(film := encode_video(pan(1), container, codec, sound=sound))
    one, other = fetched(folder, "film"), fetched(folder, "film")
    assert hashlib.sha256(one).hexdigest() == hashlib.sha256(other).hexdigest()
    assert len(one) < len(film)
    assert media_type(one) == "audio/x-matroska"
    row = get("audio").probe(one)
    assert row["duration"] == pytest.approx(2.0, abs=0.1)
    assert row["loudness"] > -40


def test_sound_that_an_edit_list_hides_is_left_out(folder: Path) -> None:
    """The last 1.5 of 4 s, by FFmpeg's command line, whose decoder gives 1.532 s of it."""
    film = Path(__file__).parents[2] / "kernels" / "films" / "hidden-sound.mp4"
    (folder / "clips" / "film").write_bytes(film.read_bytes())
    assert get("audio").probe(fetched(folder, "film"))["duration"] == pytest.approx(1.532, abs=0.01)


def test_a_large_film_is_read_from_a_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = fetched(folder, "loud/a.mp4")
    monkeypatch.setattr("mm_resources.objects.opener.LARGE_BYTES", 1_000)
    monkeypatch.setattr("mm_resources.sources.sound_tracks.LARGE_BYTES", 1_000)
    assert fetched(folder, "loud/a.mp4") == small


@pytest.mark.parametrize(
    ("path", "cause"),
    [
        ("mute.mp4", "no_audio"),
        ("cut.mp4", "truncated"),
        ("text.mp4", "decode_error"),
        ("gone.mp4", "not_found"),
    ],
)
def test_what_has_no_sound_says_why(folder: Path, path: str, cause: str) -> None:
    with pytest.raises(SampleError) as caught:
        fetched(folder, path)
    assert caught.value.error_class == cause


def test_sound_is_told_by_tables() -> None:
    import io

    assert has_sound(io.BytesIO(encode_video(pan(), sound="aac"))) is True
    assert has_sound(io.BytesIO(encode_video(pan()))) is False
    assert has_sound(io.BytesIO(encode_video(pan(), "matroska"))) is False
    assert has_sound(io.BytesIO(encode_video(pan(), "avi", "mpeg4"))) is False
    assert has_sound(io.BytesIO(encode_video(pan(), "avi", "mpeg4", sound="mp3"))) is True
    assert has_sound(io.BytesIO(encode_video(pan(), "ogg", "libvpx"))) is None
    assert has_sound(io.BytesIO(mux("mp4", "aac"))) is True
    assert has_sound(io.BytesIO(b"words")) is False


@pytest.mark.parametrize("track_of", ["films", "sound"])
def test_a_track_of_nothing_is_a_mistake(folder: Path, track_of: str) -> None:
    with pytest.raises(UserError, match=r"no source of video files|uri"):
        spec_of(folder, track_of=track_of)
