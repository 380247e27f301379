"""Modalities of the samples of ``auto`` sources, by their content."""

from __future__ import annotations

import io
from collections.abc import Iterator

from mm_embed_kernels.errors import SampleError
from mm_embed_kernels.media.tracks import stream_type
from mm_embed_kernels.modalities import modalities, modality_of, modality_of_name
from mm_embed_kernels.sandbox.sandbox import call_guarded
from mm_resources.sources import Listed, Source


def by_content(source: Source, batch: int) -> Iterator[tuple[Listed, str]]:
    """Yield the samples of an ``auto`` source with their modalities, by content.

    A sample that no modality claims takes the modality of its neighbours in the listing, whose probe names
    its type: so a stray archive makes no cell of its own.

    Args:
        batch: samples that wait for a modality at most.
    """
    waiting: list[Listed] = []
    latest = ""
    for item in source.list():
        latest = _claiming_modality(source, item) or latest
        waiting.append(item)
        if latest or len(waiting) >= batch:
            latest = latest or next(iter(modalities()))
            yield from ((each, latest) for each in waiting)
            waiting = []
    yield from ((each, next(iter(modalities()))) for each in waiting)


def _claiming_modality(source: Source, item: Listed) -> str | None:
    """Return the modality that claims a sample's content, if one does."""
    if item.error is not None:
        return modality_of_name(item.key)
    # In this process: signatures are compared and tables of bounded size searched, nothing is decoded.
    outcome: str | SampleError | None = call_guarded(_detect_modality, (source, item))
    if isinstance(outcome, SampleError):
        # A transient error is not frozen: fetching the sample tries again.
        item.error = None if outcome.retryable else outcome
        return modality_of_name(item.key)
    return outcome


def _detect_modality(source: Source, item: Listed) -> str | None:
    data = source.fetch(item.uri, item.locator)
    with io.BytesIO(data) if isinstance(data, bytes) else data as stream:
        return modality_of(stream_type(stream))
