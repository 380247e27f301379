"""Measure near-duplicates of real pictures and recordings: recall over copies, precision over look-alikes.

Run: .venv/bin/python -m benchmarks.look_alikes --pictures FOLDER --sounds FOLDER

The files of a folder must be different pictures or recordings. Every pair of two files is a look-alike, every
pair of a file and its coded, scaled, cropped, turned, shifted or quieter version a copy.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Callable, Iterator, Mapping
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
    parser.add_argument("--limit", type=int, default=1_000, help="files of each kind")
    arguments = parser.parse_args()
    for modality, folder, versions in (
        ("image", arguments.pictures, _picture_versions),
        ("audio", arguments.sounds, _sound_versions),
    ):
        if folder is not None:
            files = sorted(path for path in folder.rglob("*") if path.is_file())[: arguments.limit]
            _report(modality, files, list(_sign(modality, files, versions)))


def _sign(
    modality: str, files: list[Path], versions: Callable[[bytes], Mapping[str, bytes]]
) -> Iterator[_Signed]:
    """Yield the signals of each file and of its versions; skip what the modality cannot read."""
    for number, path in enumerate(files):
        data = path.read_bytes()
        try:
            yield number, "", get(modality).probe(data)
            for name, copy in versions(data).items():
                yield number, name, get(modality).probe(copy)
        except SampleError as error:
            print(f"{path}: {error}")


def _report(modality: str, files: list[Path], signed: list[_Signed]) -> None:
    rule = rules()[f"near_duplicate_{modality}"]()
    assert isinstance(rule, NearDuplicateRule)
    columns = [*rule.compared, *(["duration"] if modality == "audio" else [])]
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


if __name__ == "__main__":
    main()
