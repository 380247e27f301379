"""Spans of media that take time, as text."""

from __future__ import annotations

from mm_embed_kernels.errors import SampleError


def span_of(start: float, end: float) -> str:
    """Return the span from one second to another."""
    return f"seconds={start:.3f}-{end:.3f}"


def seconds_of(span: str) -> tuple[float, float]:
    """Return start and end of a span in seconds.

    Raises:
        SampleError: ``contract`` for a span that is not one of seconds.
    """
    unit, _, interval = span.partition("=")
    start, _, end = interval.partition("-")
    try:
        if unit == "seconds":
            return float(start), float(end)
    except ValueError:
        pass
    raise SampleError("contract", f"{span!r} is no span of seconds")
