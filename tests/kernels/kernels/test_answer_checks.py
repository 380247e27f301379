"""Answers of a decoder that is taken over: a wrong value costs its own sample, not the work on others."""

from __future__ import annotations

import struct
from typing import Any

import pytest

from mm_embed_kernels.errors import SampleError
from mm_embed_kernels.kernels.answer_checks import MeasurementCheck, check_segments
from mm_embed_kernels.kernels.segment import Segmenter
from mm_embed_kernels.modalities import get, modalities
from tests.kernels.media_samples import GOOD

WITH_SAMPLE = [name for name in modalities() if name in GOOD]


@pytest.mark.parametrize("name", WITH_SAMPLE)
def test_honest_answers_pass(name: str) -> None:
    kind: Any = get(name)
    samples = GOOD[name] if isinstance(GOOD[name], (list, tuple)) else [GOOD[name]]
    for data in (*samples, kind.canary()):
        row = kind.probe(data)
        assert MeasurementCheck(kind)(row) is row
        answer = Segmenter(kind)(data)
        assert check_segments(answer) is answer


@pytest.mark.parametrize(
    ("modality", "value"),
    [
        ("image", {"brightness": float("nan")}),
        ("audio", {"duration": float("inf")}),
        ("text", {"language": "x" * 5_000}),
        ("image", {"thumbnail": b"x"}),
        ("image", {"thumbnail": bytes(769)}),
        ("image", {"colors": bytes(193)}),
        ("audio", {"fingerprint": b"123"}),
        ("text", {"minhash": bytes(255)}),
        ("text", {"shingles": struct.pack("<2I", 2, 1)}),
        ("text", {"shingles": bytes(3)}),
        ("text", {"shingles": struct.pack("<257I", *range(257))}),
        ("video", {"frame_hashes": struct.pack("<fQ", float("nan"), 1)}),
        ("video", {"frame_hashes": struct.pack("<fQ", 1e30, 1)}),
        ("video", {"frame_hashes": bytes(11)}),
    ],
)
def test_a_measurement_that_others_cannot_use_is_refused(modality: str, value: dict[str, Any]) -> None:
    refused = MeasurementCheck(get(modality))({"mime": "text/plain", **value})
    assert isinstance(refused, SampleError)
    assert refused.error_class == "bad_answer"


def one(**changed: Any) -> dict[str, Any]:
    return {"segments": [{"span": "seconds=0.000-1.000", "text": None, "cost": 1, **changed}]}


@pytest.mark.parametrize(
    "answer",
    [
        None,
        [],
        {},
        {"segments": None},
        {"segments": []},
        {"segments": ["full"]},
        {"segments": [{}]},
        {"segments": one()["segments"] * 2},
        {"segments": [{**one()["segments"][0], "more": 1}]},
        *(
            one(span=span)
            for span in (None, "", "x" * 201, "a b", "full\n", "seconds=a-b", "seconds=nan-nan")
        ),
        *(one(span=span) for span in ("seconds=2.000-1.000", "seconds=-1.000-1.000", "seconds=1e9-1e10")),
        *(one(text=text) for text in (b"x", 3)),
        *(one(cost=cost) for cost in (-1, None, True, 1.5, 1 << 60)),
    ],
)
def test_what_is_no_segment_is_refused(answer: Any) -> None:
    refused = check_segments(answer)
    assert isinstance(refused, SampleError)
    assert refused.error_class == "bad_answer"
    assert check_segments(one()) == one()
