"""Broken and odd media through the kernels: every one has a record, and none ends the run."""

from __future__ import annotations

import random
import resource
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from mm_embed_kernels.embedders import create
from mm_embed_kernels.kernels.embed import EmbedKernel
from mm_embed_kernels.kernels.probe import PARTIAL, ProbeKernel
from mm_embed_kernels.kernels.segment import SegmentKernel
from mm_embed_kernels.modalities import get, modalities
from mm_embed_kernels.sandbox.sandbox import Limits
from tests.kernels.fuzz_tally import TALLY, Tally
from tests.kernels.kernels.test_kernels import requests
from tests.kernels.odd_files import bombs, damage, media
from tests.kernels.sandbox.test_sandbox import act

LIMITS = Limits(memory_bytes=3 << 30, item_seconds=60.0)
_EMBEDDERS = {"image": "conse", "audio": "aisfx", "video": "conse_frames"}
CAUSES = {
    "truncated", "decode_error", "unsupported_format", "wrong_modality", "zero_length", "decompression_bomb", "too_large", "memory_limit",
    "decoder_crash", "timeout", "encoding_unknown", "no_samples", "no_audio", "no_video", "no_frames", "no_segments",
}  # fmt: skip


@pytest.fixture(scope="module")
def tally(request: pytest.FixtureRequest) -> Iterator[Tally]:
    found = request.config.stash[TALLY] = Tally()
    yield found
    assert (found.crashes, found.unrecorded, found.hangs) == (0, 0, 0)


def peak() -> int:
    """Largest resident size of the process, MiB; runs in a child."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10


def through(tally: Tally, modality: str, blobs: list[bytes]) -> list[str]:
    """What became of each blob: ``ok``, or the class of its failure in the probe, the segmentation or the decode before embedding."""
    from mm_embed_kernels.sandbox.sandbox import shared_sandbox

    shelf, table = requests(*blobs)
    outcomes = dict.fromkeys(table["key"].to_pylist(), "")
    tally.inputs += len(outcomes)
    kernels: list[Any] = [
        ProbeKernel(get(modality), shelf, LIMITS),
        SegmentKernel(get(modality), shelf, LIMITS),
    ]
    if modality in _EMBEDDERS:
        kernels.append(EmbedKernel(create(_EMBEDDERS[modality]), shelf, LIMITS))
    began = time.monotonic()
    for kernel in kernels:
        if not table.num_rows:
            break
        try:
            rows = kernel.stages()[0].run(table)
        except BaseException as error:
            tally.crashes += 1
            raise AssertionError(f"{kernel.name} {modality}") from error
        answered = rows["key"].to_pylist()
        tally.unrecorded += (
            len(set(table["key"].to_pylist()) ^ set(answered)) + len(answered) - len(set(answered))
        )
        for row in rows.select(["key", "status", "error_class", "message"]).to_pylist():
            assert row["status"] == "ok" or (row["error_class"] in CAUSES and row["message"]), row
            outcomes[row["key"]] = row["error_class"] or "ok"
        table = table.filter(
            pa.compute.is_in(
                table["key"],
                pa.array([key for key, outcome in outcomes.items() if outcome == "ok"], pa.string()),
            )
        )
        if kernel.name == "segment":
            table = _spans(table, rows)
    late = sum(outcome == "timeout" for outcome in outcomes.values())
    tally.hangs += time.monotonic() - began > 60 + 0.5 * len(blobs) + 2 * late * LIMITS.item_seconds
    tally.children = max(tally.children, *shared_sandbox(LIMITS).map(peak, [()]))
    tally.causes.update(outcomes.values())
    return list(outcomes.values())


def _spans(table: pa.Table, rows: pa.Table) -> pa.Table:
    """The last segment of each sample: the one that reaches furthest into it."""
    spans = {row["key"]: row["segments"][-1]["span"] for row in rows.to_pylist() if row["segments"]}
    return table.set_column(
        table.column_names.index("span"), "span", pa.array([spans[key] for key in table["key"].to_pylist()])
    )


@pytest.mark.parametrize("modality", list(media()))
def test_healthy_media_pass(tally: Tally, modality: str) -> None:
    found = dict(
        zip(media()[modality], through(tally, modality, list(media()[modality].values())), strict=True)
    )
    assert found == dict.fromkeys(media()[modality], "ok")


@pytest.mark.parametrize("modality", list(media()))
def test_harmed_media(tally: Tally, modality: str) -> None:
    dice = random.Random(20_261_124)
    harm(tally, modality, dice, 12)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("modality", list(media()))
def test_many_harmed_media(tally: Tally, modality: str, seed: int) -> None:
    harm(tally, modality, random.Random(seed), 60)


def harm(tally: Tally, modality: str, dice: random.Random, copies: int) -> None:
    found = through(
        tally, modality, [damage(data, dice) for data in media()[modality].values() for _ in range(copies)]
    )
    assert "ok" in found
    assert len(set(found)) > 2


@pytest.mark.parametrize("modality", list(media()))
def test_bombs_and_disguises(tally: Tally, modality: str) -> None:
    found = dict(zip(bombs(), through(tally, modality, list(bombs().values())), strict=True))
    passed = {name for name, outcome in found.items() if outcome == "ok"}
    assert passed == {
        "image": {"png that keeps its word"}, "audio": set(), "video": set(), "document": set(),
        "text": {"playlist", "concat script", "svg", "svg that reads a file"},
    }[modality]  # fmt: skip
    expected = {
        "image": {
            "png": "decompression_bomb",
            "gif": "decompression_bomb",
            "nothing": "zero_length",
            "zeros": "unsupported_format",
        },
        "audio": {
            "wav without samples": "no_samples",
            "nothing": "zero_length",
            "gzip": "unsupported_format",
        },
        "video": {"nothing": "zero_length", "wav without samples": "wrong_modality"},
        "document": {"nothing": "zero_length", "png": "wrong_modality", "gzip": "unsupported_format"},
        "text": {
            "gzip": "unsupported_format",
            "png": "wrong_modality",
            "nothing": "no_segments",
            "one byte": "encoding_unknown",
        },
    }[modality]
    assert {name: found[name] for name in expected} == expected
    assert not Path("/tmp/climbed").exists()


@pytest.mark.parametrize("modality", list(media()))
def test_content_decides_not_the_name(tally: Tally, modality: str) -> None:
    """Media of every other modality: they fail as what they are."""
    others = {
        (other, name): data
        for other, blobs in media().items()
        if other != modality
        for name, data in blobs.items()
    }
    found = dict(zip(others, through(tally, modality, list(others.values())), strict=True))
    assert set(found.values()) <= {"wrong_modality", "unsupported_format"}, found


def test_a_planted_decoder_that_crashes_hangs_and_balloons(tally: Tally) -> None:
    """Ill-behaved decoders among fifty healthy pictures."""
    from mm_embed_kernels.sandbox.sandbox import Sandbox

    orders = {3: "segfault", 9: "hang", 17: "balloon", 30: "exit", 31: "segfault"}
    sandbox = Sandbox(Limits(memory_bytes=1 << 30, item_seconds=3.0))
    began = time.monotonic()
    outcomes = sandbox.map(act, [(orders.get(i, "work"), i) for i in range(50)])
    sandbox.close()
    tally.inputs += len(outcomes)
    classes = {i: outcome.error_class for i, outcome in enumerate(outcomes) if not isinstance(outcome, int)}
    assert classes == {
        3: "decoder_crash",
        9: "timeout",
        17: "memory_limit",
        30: "decoder_crash",
        31: "decoder_crash",
    }
    assert time.monotonic() - began < 60
    tally.causes.update(classes.values())


def test_the_probe_of_half_media_keeps_its_word(tally: Tally) -> None:
    """What `keep_prefix` accepts goes through segmentation and decode."""
    for modality, blobs in media().items():
        halves = [data[: int(len(data) * 0.7)] for data in blobs.values()]
        shelf, table = requests(*halves)
        first = ProbeKernel(get(modality), shelf, LIMITS).stages()[0].run(table).to_pylist()
        again = (
            ProbeKernel(get(modality), shelf, LIMITS, on_partial="keep_prefix")
            .stages()[0]
            .run(table)
            .to_pylist()
        )
        tally.inputs += len(halves)
        assert all(
            after["status"] == "ok"
            for before, after in zip(first, again, strict=True)
            if before["status"] == "ok"
        )
        kept = [
            i
            for i, (before, after) in enumerate(zip(first, again, strict=True))
            if before["status"] != after["status"]
        ]
        assert all(first[i]["error_class"] in PARTIAL for i in kept)
        # A document as short as these has lost its pages there.
        assert kept or modality in ("text", "document")
        if not kept:
            continue
        table = table.take(kept)
        rows = SegmentKernel(get(modality), shelf, LIMITS).stages()[0].run(table)
        assert set(rows["status"].to_pylist()) <= {"ok"}, rows.to_pylist()
        if modality in _EMBEDDERS and kept:
            decoded = (
                EmbedKernel(create(_EMBEDDERS[modality]), shelf, LIMITS).stages()[0].run(_spans(table, rows))
            )
            assert decoded["status"].to_pylist().count("ok") * 2 > len(kept), decoded.drop(
                ["input"]
            ).to_pylist()


def test_every_modality_is_fuzzed() -> None:
    assert set(media()) == {
        name for name, item in modalities().items() if type(item).__module__.startswith("mm_embed_kernels")
    }
