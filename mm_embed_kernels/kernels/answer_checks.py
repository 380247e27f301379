"""Checks of answers: a decoder is not trusted, and others compute with what it has answered.

The columns' types are checked where rows are built. A value that fits its type may still end the work on
other samples: a number that is none spoils each mean, and packed values of another length each comparison.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

from mm_embed_kernels.errors import SampleError
from mm_embed_kernels.modalities.base import Modality

# Characters of a measured text (a codec, a language), and bytes of packed values.
_MOST_CHARACTERS, _MOST_BYTES = 4_096, 64 << 20
# Segments of a blob, characters of a span, and its form: a name, and an interval of numbers or none.
_MOST_SEGMENTS, _LONGEST_SPAN = 1_000_000, 200
_SPAN = re.compile(r"[A-Za-z][\w.]*(=[^\x00-\x1f]*)?")
_INTERVAL = re.compile(r"seconds=(\d{1,9}\.\d{3})-(\d{1,9}\.\d{3})")
_LARGEST_COST = 1 << 48


class MeasurementCheck:
    """Replaces a `probe`'s answer that is none by a `SampleError`; picklable."""

    def __init__(self, modality: Modality) -> None:
        self.modality = modality

    def __call__(self, answer: Any) -> Any:
        """Return the answer, or its error."""
        for name, value in answer.items() if isinstance(answer, dict) else ():
            if fault := _fault_of(value, self.modality.packed.get(name)):
                return SampleError("bad_answer", f"the decoder answered {name!r:.80} {fault}")
        return answer


def _fault_of(value: Any, is_packed: Callable[[bytes], bool] | None) -> str:
    """Return what is wrong with a measured value, in words; "" for nothing."""
    if isinstance(value, float) and not math.isfinite(value):
        return "with a value that is no number"
    if isinstance(value, str) and len(value) > _MOST_CHARACTERS:
        return f"with {len(value):,} characters"
    if isinstance(value, bytes):
        if len(value) > _MOST_BYTES:
            return f"with {len(value):,} bytes"
        if is_packed is not None and not is_packed(value):
            return "with bytes of another form"
    return ""


def check_segments(answer: Any) -> Any:
    """Return a segmenter's answer, or a `SampleError` in place of one that is none."""
    if isinstance(answer, SampleError):
        return answer
    segments = answer.get("segments") if isinstance(answer, dict) else None
    if not isinstance(segments, list) or not 0 < len(segments) <= _MOST_SEGMENTS:
        return SampleError("bad_answer", "the decoder answered no segments, or too many")
    if not all(map(_is_segment, segments)):
        return SampleError("bad_answer", "the decoder answered what is no segment")
    if len({segment["span"] for segment in segments}) < len(segments):
        return SampleError("bad_answer", "the decoder answered a segment twice")
    return answer


def _is_segment(value: Any) -> bool:
    if not isinstance(value, dict) or value.keys() != {"span", "text", "cost"}:
        return False
    span, text, cost = value["span"], value["text"], value["cost"]
    if not isinstance(span, str) or len(span) > _LONGEST_SPAN or not _SPAN.fullmatch(span):
        return False
    if span.startswith("seconds="):
        found = _INTERVAL.fullmatch(span)
        if found is None or float(found[1]) > float(found[2]):
            return False
    return isinstance(text, str | None) and type(cost) is int and 0 <= cost <= _LARGEST_COST
