"""Measure near-duplicates of real media and texts: recall over copies, precision over look-alikes.

Run: .venv/bin/python -m benchmarks.look_alikes --pictures FOLDER --sounds FOLDER (or --videos, --texts)

The files of a folder must be different ones. Every pair of two files is a look-alike, every pair of a file
and its coded, scaled, cropped, turned, shifted, quieter or edited version a copy. Texts may be packed by
gzip. With ``--alone`` a rule sees the files without their versions, as a cell has them that holds no copies.
"""

from __future__ import annotations

import argparse
import gzip
import io
import random
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from mm_embed_kernels.errors import SampleError
from mm_embed_kernels.modalities import get
from mm_embed_kernels.rules import rules
from mm_embed_kernels.rules.duplicates import NearDuplicateRule
from mm_embed_kernels.sql import number_rows

_RATE = 16_000
# Number and version of a file, and its signals.
_Signed = tuple[int, str, dict[str, Any]]


def main() -> None:
    """Print recall for each kind of copy, and the pairs of two files that the rule matches."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=Path)
    parser.add_argument("--sounds", type=Path)
    parser.add_argument("--videos", type=Path)
    parser.add_argument("--texts", type=Path)
    parser.add_argument("--alone", action="store_true", help="measure look-alikes alone")
    parser.add_argument("--limit", type=int, default=1_000, help="files of each kind")
    arguments = parser.parse_args()
    for modality, folder, versions in (
        ("image", arguments.pictures, _picture_versions),
        ("audio", arguments.sounds, _sound_versions),
        ("video", arguments.videos, _video_versions),
        ("text", arguments.texts, _text_versions),
    ):
        if folder is not None:
            files = sorted(path for path in folder.rglob("*") if path.is_file())[: arguments.limit]
            made = (lambda _data: {}) if arguments.alone else versions
            _report(modality, files, list(_sign(modality, files, made)))


def _sign(
    modality: str, files: list[Path], versions: Callable[[bytes], Mapping[str, bytes]]
) -> Iterator[_Signed]:
    """Yield the signals of each file and of its versions; skip what the modality cannot read."""
    for number, path in enumerate(files):
        data = path.read_bytes()
        data = gzip.decompress(data) if path.suffix == ".gz" else data
        try:
            yield number, "", get(modality).probe(data)
            for name, copy in versions(data).items():
                yield number, name, get(modality).probe(copy)
        except SampleError as error:
            print(f"{path}: {error}")


def _report(modality: str, files: list[Path], signed: list[_Signed]) -> None:
    rule = rules()[f"near_duplicate_{modality}"]()
    assert isinstance(rule, NearDuplicateRule)
    columns = [*rule.compared, *(["duration"] if modality in ("audio", "video") else [])]
    table = pa.table({name: [row[name] for _, _, row in signed] for name in columns})
    matches = rule.matches(number_rows(lambda chosen: table.select(chosen).to_reader(1_000)))
    found = {
        pair for each in matches for pair in zip(each["a"].to_pylist(), each["b"].to_pylist(), strict=True)
    }
    first = {number: row for row, (number, version, _) in enumerate(signed) if not version}
    kinds: dict[str, list[bool]] = {}
    for row, (number, version, _) in enumerate(signed):
        if version:
            kinds.setdefault(version, []).append((first[number], row) in found)
    for version, hits in kinds.items():
        print(f"{modality}, {version}: recall {np.mean(hits):.3f} of {len(hits):,}")
    wrong = sorted({(signed[a][0], signed[b][0]) for a, b in found if signed[a][0] != signed[b][0]})
    pairs = len(first) * (len(first) - 1) // 2
    right = sum(signed[a][0] == signed[b][0] for a, b in found)
    other = len(found) - right
    print(
        f"{modality}: precision {right / max(1, len(found)):.4f} of {len(found):,} matches ({other:,} wrong)"
    )
    print(f"{modality}: {len(wrong):,} of {pairs:,} look-alikes matched")
    for a, b in wrong:
        print(f"  {files[a]} {files[b]}")


def _picture_versions(data: bytes) -> dict[str, bytes]:
    from PIL import Image

    whole = Image.open(io.BytesIO(data)).convert("RGBA")
    page = Image.new("RGBA", whole.size, "white")
    page.alpha_composite(whole)
    image = page.convert("RGB")
    width, height = image.size
    margin = (width // 50, height // 50, width - width // 50, height - height // 50)
    made: dict[str, tuple[Any, str, int]] = {
        "JPEG at 75": (image, "JPEG", 75),
        "JPEG at 35": (image, "JPEG", 35),
        "WebP at 50": (image, "WEBP", 50),
        "half size": (image.resize((max(1, width // 2), max(1, height // 2))), "PNG", 0),
        "a third": (image.resize((max(1, width // 3), max(1, height // 3))), "JPEG", 70),
        **{f"turned by {turn}": (image.rotate(turn, expand=True), "JPEG", 80) for turn in (90, 180, 270)},
        "cropped by 2%": (image.crop(margin), "JPEG", 85),
        "darker": (image.point(lambda value: int(value * 0.88)), "PNG", 0),
    }
    return {name: _encode(each, kind, quality) for name, (each, kind, quality) in made.items()}


def _encode(image: Any, kind: str, quality: int) -> bytes:
    sink = io.BytesIO()
    image.save(sink, kind, **({"quality": quality} if quality else {}))
    return sink.getvalue()


def _sound_versions(data: bytes) -> dict[str, bytes]:
    from mm_embed_kernels.media.audio import open_audio

    with open_audio(data) as reader:
        sound = reader.read(_RATE, 0.0, min(reader.duration(), 60.0))
    silence = np.zeros(2 * _RATE, np.float32)
    noise = np.random.default_rng(1).normal(size=len(sound)).astype(np.float32)
    made: dict[str, tuple[Any, str, str]] = {
        "MP3": (sound, "MP3", "MPEG_LAYER_III"),
        "Opus": (sound, "OGG", "OPUS"),
        "Vorbis": (sound, "OGG", "VORBIS"),
        "trimmed": (sound[_RATE // 5 : -_RATE // 10], "WAV", "PCM_16"),
        "with silence behind": (np.concatenate([sound, silence]), "WAV", "PCM_16"),
        "14 dB quieter": (sound * 0.2, "WAV", "PCM_16"),
        "with noise": (sound + 0.005 * noise, "WAV", "PCM_16"),
    }
    return {name: _encode_sound(*each) for name, each in made.items()}


def _encode_sound(samples: Any, kind: str, subtype: str) -> bytes:
    import soundfile

    sink = io.BytesIO()
    soundfile.write(sink, np.clip(samples, -1, 1), _RATE, format=kind, subtype=subtype)
    return sink.getvalue()


def _video_versions(data: bytes) -> dict[str, bytes]:
    import av

    with av.open(io.BytesIO(data)) as film:
        rate = max(2, round(film.streams.video[0].average_rate or 25))
        frames = [frame.to_ndarray(format="rgb24") for frame in islice(film.decode(video=0), 900)]
    height, width = frames[0].shape[:2]
    made: dict[str, tuple[list[Any], int, str, str, tuple[int, int]]] = {
        "H.264 at CRF 35": (frames, rate, "libx264", "35", (width, height)),
        "MPEG-4": (frames, rate, "mpeg4", "", (width, height)),
        "half size": (frames, rate, "libx264", "23", (width // 2, height // 2)),
        "half the frames": (frames[::2], rate // 2, "libx264", "23", (width, height)),
        "without the first fifth": (frames[len(frames) // 5 :], rate, "libx264", "23", (width, height)),
    }
    return {name: _encode_video(*each) for name, each in made.items()}


def _encode_video(frames: list[Any], rate: int, codec: str, quality: str, size: tuple[int, int]) -> bytes:
    import av

    sink = io.BytesIO()
    with av.open(sink, "w", format="mp4") as film:
        track: Any = film.add_stream(codec, rate=rate)
        track.width, track.height, track.pix_fmt = size[0] // 2 * 2, size[1] // 2 * 2, "yuv420p"
        if quality:
            track.options = {"crf": quality, "preset": "veryfast"}
        for pixels in frames:
            picture = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            film.mux(track.encode(picture.reformat(track.width, track.height, "yuv420p")))
        film.mux(track.encode())
    return sink.getvalue()


def _text_versions(data: bytes) -> dict[str, bytes]:
    from mm_embed_kernels.media.text_encoding import decode

    text, _, _ = decode(data)
    words, dice = text.split(" "), random.Random(len(text))
    edited = [dice.choice(words) if dice.random() < 0.02 else word for word in words]
    made = {
        "other white space and case": " \n".join(text.upper().split()),
        "a word in fifty": " ".join(edited),
        "cut by a tenth": text[: len(text) * 9 // 10],
        "a line before and behind": f"Copied from a page of the archive.\n{text}\nSeen by nobody.",
    }
    return {name: each.encode() for name, each in made.items()}


if __name__ == "__main__":
    main()
