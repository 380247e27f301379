"""Pages of the explorer as HTML: templates, and what all of them show."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from typing import Any
from urllib.parse import urlencode

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from starlette.responses import Response

from mm_embed_kernels import sql
from mm_embed_kernels.errors import SampleError
from mm_embed_kernels.escapes import escape_html
from mm_embed_kernels.media.spans import seconds_of
from mm_resources.costs.figures import format_amount

_WORD = re.compile(r"\w+", re.UNICODE)
# Characters of a text on a card.
_SNIPPET = 320


@cache
def _environment() -> Environment:
    made = Environment(
        loader=PackageLoader("mm_resources.serving"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_show,
    )
    made.filters |= {
        "passage": mark_words,
        "playable": fragment_of,
        "count": _count,
        "number": _number,
        "prose": prose,
        "of": count_of,
        "part": part_of,
        "seconds": _span_of_seconds,
        "moment": _moment,
        "tail": tail_of,
        "as_key": _key_condition,
        "money": format_amount,
    }
    made.globals |= {"address": address}
    return made


def _show(value: Any) -> Any:
    """Return a value as a page shows it: names of strangers cannot turn a line round or hide."""
    if isinstance(value, Markup):
        return value
    return "" if value is None else Markup(escape_html(value))


def render(name: str, status: int = 200, **values: Any) -> Response:
    """Return a page."""
    text = _environment().get_template(name).render(values)
    return Response(text.encode("utf-8", "replace"), status, media_type="text/html; charset=utf-8")


def address(path: str, given: Mapping[str, Any] = {}, **changes: Any) -> str:
    """Return the address of a view: what is asked now, with changes; None and "" are left out."""
    chosen = {name: value for name, value in {**given, **changes}.items() if value not in (None, "", [])}
    return f"{path}?{urlencode(chosen, doseq=True)}" if chosen else path


def mark_words(text: str | None, query: str | None) -> Markup:
    """Return the beginning of a text, or the passage around the query's first word, with its words marked."""
    flat = " ".join((text or "").split())
    words = {word.lower() for word in _WORD.findall(query or "") if len(word) > 2}
    first = next((found.start() for found in _WORD.finditer(flat) if found[0].lower() in words), 0)
    begin = max(0, first - _SNIPPET // 3)
    passage = flat[begin : begin + _SNIPPET]
    parts, at = [], 0
    for found in _WORD.finditer(passage):
        if found[0].lower() in words:
            parts += [escape_html(passage[at : found.start()]), f"<mark>{escape_html(found[0])}</mark>"]
            at = found.end()
    parts.append(escape_html(passage[at:]))
    ends = "…" if begin + _SNIPPET < len(flat) else ""
    return Markup(("…" if begin else "") + "".join(parts) + ends)


def prose(text: str, dataset_version: str = "") -> Markup:
    """Return a sentence whose parts in backticks are code, about a version where one is named."""
    named = text.replace("DATASET@VERSION", dataset_version) if dataset_version else text
    parts = [escape_html(part) for part in named.split("`")]
    return Markup("".join(f"<code>{part}</code>" if i % 2 else part for i, part in enumerate(parts)))


def fragment_of(span: str | None) -> str:
    """Return the media fragment of a span, ``#t=12,17``; "" for a span of something else than time."""
    try:
        begin, end = seconds_of(span or "")
    except SampleError:
        return ""
    return f"#t={begin:g},{end:g}"


def count_of(number: int, noun: str) -> str:
    """Return a number with its noun, as in ``1 hit`` and ``2,000 hits``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def part_of(span: str) -> str:
    """Return a span as people read it: ``0:05.5 to 0:07.5``; one of something else than time unchanged."""
    try:
        begin, end = seconds_of(span)
    except SampleError:
        return span.replace("chars=", "characters ")
    return f"{_clock(begin)} to {_clock(end)}"


def _span_of_seconds(span: str | None) -> str | None:
    """Return a span of seconds; None for one of something else."""
    return span if fragment_of(span) else None


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds, 1), 60)
    hours, minutes = divmod(int(minutes), 60)
    return (f"{hours}:{minutes:02d}" if hours else f"{minutes}") + f":{rest:04.1f}"


def tail_of(uri: str | None) -> str:
    """Return the end of a path or URL: the folder and the name."""
    return "/".join((uri or "").rstrip("/").rsplit("/", 2)[-2:])


def _key_condition(key: str) -> str:
    """Return the filter that chooses a sample by its key."""
    return f"key = {sql.literal(key)}"


def _moment(text: str) -> str:
    """Return a time in ISO 8601 as people read it."""
    return f"{text[:16].replace('T', ' ')} UTC" if text.endswith(("+00:00", "Z")) else text[:19]


def _count(value: Any) -> str:
    return f"{int(value):,}" if value is not None else ""


def _number(value: Any) -> str:
    return f"{float(value):.4g}" if isinstance(value, int | float) else str(value)
