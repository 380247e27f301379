"""Bounds of a service: over them a request is refused with one line."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ServiceLimits:
    """Most of what one request, and all together, may take.

    Attributes:
        body_bytes: body of a request without media.
        upload_bytes: body of a request with a medium.
        k: hits of a search, all pages together.
        page_rows: rows of a page.
        filter_chars: length of a filter.
        query_chars: length of a text query.
        queries: queries of one request.
        vector_values: numbers of a query vector.
        seconds: time of an answer.
        receive_seconds: time in which each part of a request must arrive, and each part of an answer leave.
        workers: answers that are computed at once.
        waiting: further requests that wait for a worker.
        streams: training sets that are streamed at once.
        preview_bytes: memory of cached previews.
        manifests: training sets that are remembered.
        connections: open connections.
    """

    body_bytes: int = 1 << 20
    upload_bytes: int = 64 << 20
    k: int = 1000
    page_rows: int = 500
    filter_chars: int = 4_000
    query_chars: int = 20_000
    queries: int = 64
    vector_values: int = 16_384
    seconds: float = 30.0
    receive_seconds: float = 15.0
    workers: int = 16
    waiting: int = 64
    streams: int = 8
    preview_bytes: int = 64 << 20
    manifests: int = 256
    connections: int = 256
