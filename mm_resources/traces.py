"""Traces of stages and kernels by OpenTelemetry, where the usual variables (``OTEL_...``) ask for them.

A span costs nothing where none is asked for. Spans of a Dagster run are of one trace, whose id is the run's;
they are sent in the background, and a collector that does not answer costs the work nothing.
"""

from __future__ import annotations

import logging
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.export import SpanExporter
    from opentelemetry.trace import Span, Tracer

_log = logging.getLogger(__name__)
_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
_EXPORTER = "OTEL_TRACES_EXPORTER"
_run: ContextVar[str] = ContextVar("mm_run", default="")


@contextmanager
def trace_span(name: str, run_id: str = "", **attributes: Any) -> Iterator[Span | None]:
    """Trace a block; yield its span, or None where no traces are asked for.

    Args:
        name: of the span, such as ``stage embeddings``.
        run_id: a Dagster run, a UUID, whose trace the span begins or joins.
        attributes: of the span, named ``mm.NAME``; None is left out.
    """
    tracer = _open_tracer(_chosen_exporter())
    if tracer is None:
        yield None
        return
    token = _run.set(run_id) if run_id else None
    try:
        with tracer.start_as_current_span(name) as span:
            add_attributes(span, run_id=run_id or None, **attributes)
            yield span
    finally:
        if token is not None:
            _run.reset(token)


def add_attributes(span: Span | None, **attributes: Any) -> None:
    """Add attributes to a span, named ``mm.NAME``; None is left out."""
    if span is not None:
        for name, value in attributes.items():
            if value is not None:
                known = isinstance(value, str | int | float | bool)
                span.set_attribute(f"mm.{name}", value if known else str(value))


def flush_traces(seconds: float = 2.0) -> None:
    """Send the spans that wait, for at most so many seconds."""
    if _own_provider.cache_info().currsize and (provider := _own_provider()) is not None:
        provider.force_flush(int(seconds * 1_000))


def _chosen_exporter() -> str:
    """Return which exporter the environment asks for: ``otlp``, ``console``, or "" for none."""
    if os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return ""
    chosen = os.environ.get(_EXPORTER, "").strip().lower()
    if chosen in ("otlp", "console"):
        return chosen
    return "otlp" if not chosen and any(os.environ.get(name) for name in _ENDPOINTS) else ""


@cache
def _open_tracer(wanted: str) -> Tracer | None:
    if not wanted:
        return None
    try:
        from opentelemetry import trace
        from opentelemetry.sdk.trace import TracerProvider
    except ModuleNotFoundError as error:
        _log.warning(f"no traces are sent: {error.name} is missing; pip install 'mm-features[observe]'")
        return None
    present = trace.get_tracer_provider()
    # Of a process that traces itself: its spans and these are one tree.
    provider = present if isinstance(present, TracerProvider) else _own_provider()
    return provider.get_tracer("mm") if provider is not None else None


@cache
def _own_provider() -> Any:
    from opentelemetry.sdk.resources import SERVICE_NAME, Resource
    from opentelemetry.sdk.trace import RandomIdGenerator, TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    class RunIds(RandomIdGenerator):
        """Ids of traces: those of Dagster's runs."""

        def generate_trace_id(self) -> int:
            try:
                return uuid.UUID(_run.get()).int
            except ValueError:
                return super().generate_trace_id()

    exporter = _exporter(_chosen_exporter())
    if exporter is None:
        return None
    named = {SERVICE_NAME: os.environ.get("OTEL_SERVICE_NAME") or "mm-features"}
    provider = TracerProvider(resource=Resource.create(named), id_generator=RunIds())
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return provider


def _exporter(wanted: str) -> SpanExporter | None:
    if wanted == "console":
        from opentelemetry.sdk.trace.export import ConsoleSpanExporter

        return ConsoleSpanExporter()
    protocol = os.environ.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL") or os.environ.get(
        "OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"
    )
    if protocol != "http/protobuf":
        _log.warning(f"no traces are sent: OTEL_EXPORTER_OTLP_PROTOCOL is {protocol}; set http/protobuf")
        return None
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    return OTLPSpanExporter()
