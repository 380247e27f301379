"""Near-duplicates: groups, keepers and evidence."""

from __future__ import annotations

import io
import random
from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pytest

from mm_embed_kernels.errors import UserError
from mm_embed_kernels.identity import sample_id
from mm_embed_kernels.media.spans import seconds_of
from mm_embed_kernels.modalities import get
from mm_embed_kernels.rules import rule_set, rules
from mm_embed_kernels.rules.duplicates import DuplicateRule
from mm_embed_kernels.similarity import shingles
from tests.kernels.media_samples import encode_image, icons, photographs
from tests.kernels.sample_rows import sample, table
from tests.kernels.sounds import RATE, encode_audio, melody, noise
from tests.kernels.videos import black, encode_video, pan, still

LONG = "The old lighthouse keeper climbed the narrow stairs every single evening to light the lamp for all the ships at sea"
TEXTS = {
    "b": LONG,
    "a": LONG.replace("every single evening", "every evening"),
    "c": LONG.upper() + "  !",
    "d": LONG.replace("narrow", "broad").replace("ships", "boats").replace("evening", "morning"),
    "other": "Nobody had told the children that the museum would be closed on the first Monday of the month",
}


def texts(of: Mapping[str, str], **changed: Any) -> pa.Table:
    rows = []
    for key, text in of.items():
        signature, sketch = shingles.signature(text)
        rows.append(sample("text", key, minhash=signature, shingles=sketch, characters=len(text), **changed))
    return table("text", *rows)


def name(key: str) -> str:
    return sample_id("birds", "s", key)


def found(rule: DuplicateRule, rows: pa.Table, batch: int = 2) -> dict[str, dict[str, Any]]:
    """What a rule says of each sample, by key."""

    def read(columns: list[str]) -> pa.RecordBatchReader:
        chosen = rows.select(columns)
        return pa.RecordBatchReader.from_batches(chosen.schema, chosen.to_batches(max_chunksize=batch))

    rule.prepare(read)
    said = {}
    for part in read(list(rule.columns)):
        verdict = rule.judge(pa.Table.from_batches([part]))
        assert verdict.evidence is not None
        columns = (
            part["key"],
            verdict.passed,
            verdict.value,
            verdict.evidence.group,
            verdict.evidence.duplicates,
        )
        for key, passed, value, group, duplicates in zip(
            *(column.to_pylist() for column in columns), strict=True
        ):
            said[key] = {"passed": passed, "value": value, "group": group, "duplicates": duplicates}
    return said


def near(**settings: Any) -> Any:
    return rules()["near_duplicate_text"](**settings)


def test_texts_with_edits_are_a_group() -> None:
    said = found(near(), texts(TEXTS))
    assert {key for key, item in said.items() if item["group"]} == {"a", "b", "c"}
    assert {said[key]["group"] for key in "abc"} == {f"near-{name('a')}"}
    assert {key for key, item in said.items() if not item["passed"]} == {"b", "c"}
    (first, *more) = said["c"]["duplicates"]
    assert first["of"] == name("a")
    assert [item["of"] for item in more] == [name("b")]
    assert all(
        item["kind"] == "near_text" and item["span"] is None and item["score"] >= 0.8
        for item in [first, *more]
    )
    assert said["c"]["value"] == round(max(first["score"], more[0]["score"]), 4)
    assert said["a"] == {"passed": True, "value": None, "group": f"near-{name('a')}", "duplicates": []}
    assert said["other"] == {"passed": True, "value": None, "group": None, "duplicates": []}


def test_the_threshold_is_a_jaccard_similarity() -> None:
    bodies = {key: " ".join(text.casefold().split()) for key, text in TEXTS.items()}
    sets = {key: {body[i : i + 5] for i in range(len(body) - 4)} for key, body in bodies.items()}
    score = len(sets["b"] & sets["d"]) / len(sets["b"] | sets["d"])
    two = texts({key: TEXTS[key] for key in "bd"})
    assert found(near(min_similarity=score - 0.001), two)["d"]["value"] == round(score, 4)
    assert found(near(min_similarity=score + 0.001), two)["d"]["group"] is None


@pytest.mark.parametrize("batch", [1, 3, 100])
def test_neither_order_nor_batches_matter(batch: int) -> None:
    expected = found(near(), texts(TEXTS))
    assert found(near(), texts(dict(reversed(TEXTS.items()))), batch) == expected


FOOTER = """
--
This message and its attachments may contain confidential information and are intended for the addressee alone. If you
have received it by mistake, please tell the sender, delete it, and neither copy nor forward it to anybody. Opinions in it
are those of its author, and not necessarily those of Example Shipping Limited, registered in Bristol under number 01234567.
Please consider the environment before you print this message. Example Shipping Limited, 12 Harbour Road, Bristol.
Our offices are closed on public holidays. Cargo is carried under our general terms, which we send on request, and which
limit our liability for delay, for damage by sea water, and for what the shipper has not declared. Prices are in pounds.
Follow us for news of departures, or call the harbour desk between eight and six; outside these hours a machine answers.
"""
BODIES = [
    "Dear Anna, the crates of lamps have arrived in Lisbon and wait for their papers.",
    "Hello Tom, could you send me the plan of the third deck before Friday noon?",
    "We cannot accept the offer for the crane; its engine is older than you wrote.",
    "The crew of the Marigold asks for two more blankets and a new kettle.",
    "Our accountant found a mistake of forty pounds in the invoice of last March.",
    "Lunch is moved to one o'clock, since the minister's visit takes all morning.",
    "Please book a pilot for the tide on Tuesday, the small one if she is free.",
    "Nobody has seen the keys of warehouse nine; the locksmith comes tomorrow.",
    "Thank you for the photographs, we shall hang the one with the lighthouse.",
    "The insurance needs the weight of the anchor chain, in tons, by tonight.",
    "Your parcel was returned to us, as the street in the address has no number 80.",
    "I shall be on leave until the ninth; ask Miriam about the dredger.",
]


@pytest.mark.parametrize("count", [5, 12])
def test_a_footer_says_nothing(count: int) -> None:
    """The mails agree in more than 80% of their letters, and say different things."""
    mails = {f"m{i:02d}": body + FOOTER for i, body in enumerate(BODIES[:count])}
    alone = found(near(), texts({key: mails[key] for key in ("m00", "m01")}))
    assert {item["group"] is None for item in alone.values()} == {False}
    assert groups_of(found(near(), texts(mails))) == set()
    copies = {"copy": mails["m03"].upper(), "edited": mails["m03"].replace("blankets", "blanket")}
    said = groups_of(found(near(), texts({**mails, **copies})))
    assert said == {frozenset({"m03", "copy", "edited"})}
    backwards = dict(reversed(list({**mails, **copies}.items())))
    assert groups_of(found(near(), texts(backwards), batch=3)) == said


def test_pages_of_one_template_are_not_alike() -> None:
    frame = "Home > Shop > Garden. Free delivery from forty pounds, and thirty days to return what you do not like. {} "
    frame += "Write a review. Customers also bought: gloves, twine, a sieve. Payment by card or transfer. Imprint, terms."
    goods = ["oak bench, two metres, oiled", "copper watering can, five litres", "rake with twelve steel teeth",
             "hammock of blue cotton rope", "bird house for wrens, larch", "seeds of the tall white foxglove",
             "folding saw, blade of 18 cm", "clay pot with a glazed saucer", "wheelbarrow with a solid tyre"]  # fmt: skip
    pages = {name: frame.format(name.capitalize()) for name in goods}
    assert groups_of(found(near(), texts(pages))) == set()


def test_many_versions_of_one_text_stay_together() -> None:
    """What is left of each beside what all share is a word, which is too little to tell them apart."""
    words = ["tall", "old", "white", "lonely", "proud", "round", "grey", "broad", "cold", "dark"]
    versions = {word: f"{LONG}, near the {word} rocks of the northern bay" for word in words}
    assert groups_of(found(near(), texts(versions))) == {frozenset(words)}


def test_the_largest_may_be_kept() -> None:
    said = found(near(keep="largest"), texts(TEXTS))
    assert {key for key, item in said.items() if item["passed"]} == {"c", "d", "other"}
    assert {said[key]["group"] for key in "abc"} == {f"near-{name('a')}"}
    assert said["a"]["duplicates"][0]["of"] == name("c")


def test_a_chain_is_one_group() -> None:
    """The ends need not be near each other."""
    parts = f"{LONG} {TEXTS['other']}".split()
    chain = {f"k{i:02d}": " ".join(parts[i : i + 20]) for i in range(len(parts) - 19)}
    said = found(near(), texts(chain))
    assert {item["group"] for item in said.values()} == {f"near-{name('k00')}"}
    last = said[max(chain)]
    assert 0 < len(last["duplicates"]) < len(chain) - 1
    assert name("k00") not in [item["of"] for item in last["duplicates"]]


def test_copies_are_near() -> None:
    said = found(near(), texts({f"k{i:04d}": LONG for i in range(300)}), batch=64)
    assert {item["group"] for item in said.values()} == {f"near-{name('k0000')}"}
    assert [key for key, item in said.items() if item["passed"]] == ["k0000"]
    assert all(1 <= len(item["duplicates"]) <= 4 for key, item in said.items() if key != "k0000")


def test_what_has_no_signature_is_left_out() -> None:
    rows = texts({"a": LONG, "b": "", "c": " ", "d": LONG + "."})
    assert {key for key, item in found(near(), rows).items() if item["group"]} == {"a", "d"}
    assert found(near(), texts({"a": "", "b": ""}))["a"]["group"] is None


def test_a_few_letters_are_like_nothing() -> None:
    """Of "good morning all" there are 12 shingles of five letters."""
    short = {"a": "Good morning all", "b": "good  morning all", "c": "-" * 300, "d": "-" * 299}
    assert groups_of(found(near(), texts(short))) == set()
    assert groups_of(found(near(min_shingles=12), texts(short))) == {frozenset("ab")}


def test_exact_and_near_find_the_same_copies() -> None:
    rows = texts({"a": LONG, "b": LONG}, content_hash="1" * 64)
    exact = found(rules()["exact_duplicate"](), rows)
    assert exact["b"] == {
        "passed": False, "value": name("a"), "group": f"exact-{name('a')}",
        "duplicates": [{"of": name("a"), "kind": "exact", "score": 1.0, "span": None}],
    }  # fmt: skip
    assert found(near(), rows)["b"]["passed"] is False


def probed(modality: str, media: Mapping[str, bytes]) -> pa.Table:
    return table(
        modality, *(sample(modality, key, **get(modality).probe(data)) for key, data in media.items())
    )


def groups_of(said: dict[str, dict[str, Any]]) -> set[frozenset[str]]:
    groups: dict[str, set[str]] = {}
    for key, item in said.items():
        if item["group"]:
            groups.setdefault(item["group"], set()).add(key)
    return {frozenset(members) for members in groups.values()}


def test_pictures_at_other_sizes_and_in_other_codings_are_groups() -> None:
    pictures = {
        f"{name}/{i}": data
        for name, versions in {**icons(), **photographs()}.items()
        for i, data in enumerate(versions)
    }
    said = found(rules()["near_duplicate_image"](), probed("image", pictures), batch=7)
    expected = {
        frozenset(key for key in pictures if key.startswith(f"{name}/"))
        for name in {**icons(), **photographs()}
    }
    # Some icons are drawn anew for 24 pixels, with other lines.
    redrawn = {
        frozenset({f"{icon}/0", f"{icon}/1"}) for icon in ("filesave", "matplotlib", "move", "subplots")
    }
    assert expected - groups_of(said) <= redrawn
    assert groups_of(said) <= expected
    (proof, *_) = said["flower/1"]["duplicates"]
    assert proof["of"] == name("flower/0")
    assert proof["kind"] == "near_image"
    assert proof["score"] >= 0.97


def test_the_largest_picture_may_be_kept() -> None:
    pictures = {str(i): data for i, data in enumerate(reversed(photographs()["china"]))}
    said = found(rules()["near_duplicate_image"](keep="largest"), probed("image", pictures))
    assert [key for key, item in said.items() if item["passed"]] == ["1"]


def test_colors_tell_apart_what_has_one_shape() -> None:
    """Three stripes: of the luma of these flags, a difference hash sees next to nothing."""
    from PIL import Image

    def flag(*stripes: str) -> bytes:
        image = Image.new("RGB", (300, 200))
        for i, color in enumerate(stripes):
            image.paste(color, (100 * i, 0, 100 * i + 100, 200))
        return encode_image(image, "PNG")

    flags = {
        "france": flag("#002395", "white", "#ed2939"),
        "italy": flag("#009246", "white", "#ce2b37"),
        "ireland": flag("#169b62", "white", "#ff883e"),
    }
    rows = probed("image", flags)
    assert groups_of(found(rules()["near_duplicate_image"](), rows)) == set()


def test_a_copy_may_be_darker_and_turned_but_not_mirrored() -> None:
    from PIL import Image

    pictures = {}
    for key, (original, *_) in photographs().items():
        image = Image.open(io.BytesIO(original))
        versions = {
            "upright": image,
            "darker": image.point(lambda value: int(value * 0.88)),
            **{f"turned-{turn}": image.rotate(turn, expand=True) for turn in (90, 180, 270)},
            "turned-small": image.rotate(90, expand=True).resize((image.height // 3, image.width // 3)),
            "mirrored": image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        }
        pictures.update(
            {f"{key}/{name}": encode_image(v, "JPEG", quality=70) for name, v in versions.items()}
        )
    rows = probed("image", pictures)
    assert groups_of(found(rules()["near_duplicate_image"](), rows, batch=5)) == {
        frozenset(each for each in pictures if each.startswith(key) and not each.endswith("mirrored"))
        for key in photographs()
    }
    strict = found(rules()["near_duplicate_image"](max_color_distance=5.0), rows)
    assert all(strict[f"{key}/darker"]["group"] is None for key in photographs())


def plant(leaves: int, stem: str, color: str, seed: int) -> Any:
    """A drawn plant in the middle of a white page."""
    from PIL import Image, ImageDraw

    image, dice = Image.new("RGB", (400, 400), "white"), random.Random(seed)
    draw = ImageDraw.Draw(image)
    draw.line((200, 120, 200, 280), fill=stem, width=8)
    for _ in range(leaves):
        x, y = 200 + dice.randint(-50, 50), 200 + dice.randint(-80, 60)
        draw.ellipse((x - 22, y - 12, x + 22, y + 12), fill=color)
    return image


def test_a_blank_background_is_no_likeness() -> None:
    plants = {
        "fern": plant(9, "#604020", "#208030", 1),
        "rose": plant(5, "#306020", "#c02040", 2),
        "ivy": plant(7, "#403020", "#106030", 3),
        "pansy": plant(4, "#306020", "#6030a0", 4),
    }
    pictures = {
        f"{key}/{kind}": encode_image(image, kind, **options)
        for key, image in plants.items()
        for kind, options in (("PNG", {}), ("JPEG", {"quality": 50}), ("WEBP", {"quality": 60}))
    }
    blank = {f"blank/{level}": encode_image(page(level), "JPEG") for level in (255, 254, 40)}
    said = found(rules()["near_duplicate_image"](), probed("image", {**pictures, **blank}))
    assert groups_of(said) == {
        frozenset(each for each in pictures if each.startswith(f"{key}/")) for key in plants
    }


def page(level: int) -> Any:
    from PIL import Image

    return Image.new("RGB", (400, 400), (level, level, level))


@pytest.mark.parametrize("distance", [-1, 8, 2.5])
def test_distances_that_cannot_be_looked_up(distance: float) -> None:
    with pytest.raises(
        UserError, match=r"near_duplicate_image\.max_distance: .* is not a whole number from 0 to 7"
    ):
        rule_set("image", {"near_duplicate_image": {"max_distance": distance}})


def test_recordings_in_other_codings_are_groups() -> None:
    coded: list[tuple[str, str | None]] = [
        ("FLAC", None),
        ("OGG", "VORBIS"),
        ("OGG", "OPUS"),
        ("MP3", None),
        ("WAV", "ULAW"),
    ]
    sounds = {
        f"{seed}/{i}": encode_audio(melody(seed=seed), kind, RATE, subtype)
        for seed in range(3)
        for i, (kind, subtype) in enumerate(coded)
    }
    said = found(
        rules()["near_duplicate_audio"](),
        probed("audio", {**sounds, "noise": encode_audio(noise(6.0, seed=1))}),
        batch=4,
    )
    assert groups_of(said) == {
        frozenset(key for key in sounds if key.startswith(f"{seed}/")) for seed in range(3)
    }
    assert {proof["span"] for item in said.values() for proof in item["duplicates"]} == {None}


def test_a_part_of_a_recording_is_found_with_its_place() -> None:
    import numpy as np

    whole = melody(12.0, seed=5)
    sounds = {
        "whole": encode_audio(whole),
        "part": encode_audio(np.concatenate([noise(1.0, level=0.01), whole[4 * RATE : 9 * RATE]]), "OGG"),
    }
    said = found(rules()["near_duplicate_audio"](keep="largest"), probed("audio", sounds))
    (proof,) = said["part"]["duplicates"]
    assert (proof["of"], proof["kind"]) == (name("whole"), "near_audio")
    start, end = seconds_of(proof["span"])
    # To the sixth of a second: a frame of the fingerprint is 0.37 s long.
    assert start == pytest.approx(1.0, abs=1.1)
    assert end == pytest.approx(6.0, abs=0.2)
    assert said["whole"]["passed"]


def test_silence_is_like_nothing() -> None:
    sounds = {
        key: encode_audio(noise(3.0, level=level, seed=seed))
        for seed, (key, level) in enumerate({"a": 0.0, "b": 0.0, "c": 1e-5, "d": 1e-5}.items())
    }
    assert groups_of(found(rules()["near_duplicate_audio"](), probed("audio", sounds))) == set()


def with_tail(voice: Any, kind: str, seconds: float = 6.0) -> Any:
    """A voice that ends in a room's ringing, over a mains hum, or in noise of -80 dBFS."""
    import numpy as np

    voice = voice[:, 0]
    time = np.arange(len(voice) + round(seconds * RATE)) / RATE
    after = np.maximum(0, time - len(voice) / RATE)
    tail = {
        "ringing": np.exp(-after) * (after > 0) * sum(np.sin(2 * np.pi * f * time) for f in (330, 495, 880)),
        "hum": sum(np.sin(2 * np.pi * 50 * n * time) / n for n in range(1, 40)) * 0.2,
        "quiet": np.random.default_rng(1).normal(size=len(time)) * 1e-3,
    }[kind]
    return (np.pad(voice, (0, len(time) - len(voice))) * 0.7 + 0.05 * tail).astype(np.float32)[:, None]


@pytest.mark.parametrize("kind", ["ringing", "hum", "quiet"])
def test_four_voices_in_one_room_are_four_recordings(kind: str) -> None:
    sounds = {}
    for seed in range(4):
        recording = with_tail(melody(2.0, seed=seed), kind)
        sounds[f"{seed}/0"] = encode_audio(recording)
        sounds[f"{seed}/1"] = encode_audio(recording, "OGG", RATE, "VORBIS")
    assert groups_of(found(rules()["near_duplicate_audio"](), probed("audio", sounds))) == {
        frozenset({f"{seed}/0", f"{seed}/1"}) for seed in range(4)
    }


def test_a_fingerprint_covers_ten_minutes() -> None:
    """The second half of two minutes is found, also behind a beginning of a minute."""
    import numpy as np

    whole = np.concatenate([melody(10.0, seed=seed) for seed in range(13)])
    sounds = {"whole": encode_audio(whole), "end": encode_audio(whole[100 * RATE :], "OGG", RATE, "VORBIS")}
    rows = probed("audio", sounds)
    assert len(rows["fingerprint"][0].as_py()) == 4 * (130 * 16_000 // 370 + 1)
    (proof,) = found(rules()["near_duplicate_audio"](), rows)["whole"]["duplicates"]
    assert seconds_of(proof["span"]) == pytest.approx((100.0, 130.0), abs=0.4)


def test_a_longer_recording_has_a_fingerprint_of_its_windows() -> None:
    """Twenty windows of 30 s; of an hour, they begin every 3570 / 19 s."""
    from mm_embed_kernels.modalities.audio import measured_windows
    from mm_embed_kernels.similarity import acoustic_fingerprint

    steps = 30 * 16_000 // 370 + 1
    assert steps == acoustic_fingerprint.WINDOW_STEPS
    starts = [acoustic_fingerprint.second_of(number * steps, 20 * steps, 3600.0) for number in range(20)]
    assert starts == pytest.approx([3570 / 19 * number for number in range(20)])
    assert starts == pytest.approx([start for start, _ in measured_windows(3600.0)])
    assert acoustic_fingerprint.second_of(1_000, 25_000, 3600.0) == pytest.approx(23.125), "a whole recording"
    assert acoustic_fingerprint.second_of(19 * steps + 100, 20 * steps, 3600.0) == pytest.approx(
        3570 + 100 * 370 / 16_000
    )
    assert len(acoustic_fingerprint.window(noise(29.9)[:, 0])) == steps


def test_videos_in_other_codings_and_sizes_are_groups() -> None:
    films = {}
    for seed in range(2):
        frames = [*pan(seed, 3), *pan(seed + 10, 3)]
        small = [frame[::2, ::2].copy() for frame in frames]
        films.update(
            {
                f"{seed}/0": encode_video(frames),
                f"{seed}/1": encode_video(frames, "webm", "libvpx"),
                f"{seed}/2": encode_video(small, "matroska", "mpeg4"),
            }
        )
    said = found(rules()["near_duplicate_video"](), probed("video", films), batch=4)
    assert groups_of(said) == {frozenset(f"{seed}/{i}" for i in range(3)) for seed in range(2)}
    assert {proof["span"] for item in said.values() for proof in item["duplicates"]} == {None}


def test_a_trailer_inside_a_film_is_found_with_its_place() -> None:
    trailer = [*pan(1, 4), *pan(2, 4)]
    film = [*pan(3, 6), *trailer, *pan(4, 10)]
    said = found(
        rules()["near_duplicate_video"](),
        probed("video", {"a-trailer": encode_video(trailer), "film": encode_video(film, "webm", "libvpx")}),
    )
    (proof,) = said["film"]["duplicates"]
    assert (proof["of"], proof["kind"]) == (name("a-trailer"), "near_video")
    assert seconds_of(proof["span"]) == pytest.approx((6.0, 14.0), abs=1.0)
    assert proof["score"] > 0.9


def test_black_and_still_videos_are_like_nothing() -> None:
    films = {
        "a": encode_video(still(black(), 4)),
        "b": encode_video(still(black(), 4), "webm", "libvpx"),
        "c": encode_video(still(pan()[0], 4)),
        "d": encode_video(still(pan()[0], 4), "webm", "libvpx"),
    }
    assert groups_of(found(rules()["near_duplicate_video"](), probed("video", films))) == set()


def test_a_title_card_and_slides_on_white_are_no_likeness() -> None:
    """Two films begin with one title card, with a film's grain; two talks have other lines on white slides."""
    import numpy as np

    def grain(frames: list[Any], seed: int) -> list[Any]:
        dice = np.random.default_rng(seed)
        return [np.clip(f + dice.normal(0, 2, f.shape), 0, 255).astype(np.uint8) for f in frames]

    def slides(seed: int) -> list[Any]:
        dice, shown = np.random.default_rng(seed), []
        for _ in range(4):
            slide = np.full_like(black(), 255)
            height, width = slide.shape[:2]
            for _ in range(3):
                top, left = dice.integers(0, height - 24), dice.integers(0, width // 2)
                slide[top : top + 12, left : left + width // 3] = 30
            shown += still(slide, 1.5)
        return shown

    card = still(pan(9)[0], 4)
    films = {
        "one": encode_video([*grain(card, 1), *pan(1, 2)]),
        "two": encode_video([*grain(card, 2), *pan(2, 2)]),
        "talk": encode_video(slides(1)),
        "talk again": encode_video(slides(1), "webm", "libvpx"),
        "lecture": encode_video(slides(2)),
    }
    said = found(rules()["near_duplicate_video"](), probed("video", films))
    assert groups_of(said) == {frozenset({"talk", "talk again"})}


def test_films_of_one_camera_that_stands_still_differ_by_what_happens() -> None:
    """A fixed view, in which a pane moves on another way in each film; a copy follows the same way."""
    import numpy as np

    view = pan()[0]
    height, width, _ = view.shape

    def walk(seed: int, count: int = 80) -> list[Any]:
        dice = np.random.default_rng(seed)
        rows = np.interp(
            np.arange(count), np.arange(0, count + 16, 16), dice.random(count // 16 + 1) * height * 0.6
        )
        columns = np.interp(
            np.arange(count), np.arange(0, count + 16, 16), dice.random(count // 16 + 1) * width * 0.6
        )
        frames = []
        for row, column in zip(rows.astype(int), columns.astype(int), strict=True):
            frame = view.copy()
            frame[row : row + height // 3, column : column + width // 4] = 255 - 40 * seed
            frames.append(frame)
        return frames

    films = {
        "monday": encode_video(walk(1)),
        "monday again": encode_video(walk(1), "webm", "libvpx"),
        "tuesday": encode_video(walk(2)),
        "wednesday": encode_video(walk(3)),
    }
    said = found(rules()["near_duplicate_video"](), probed("video", films))
    assert groups_of(said) == {frozenset({"monday", "monday again"})}
