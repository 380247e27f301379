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

from mm_embed_kernels.errors import SampleError
from mm_embed_kernels.escapes import escape_html
from mm_embed_kernels.media.spans import seconds_of

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


def prose(text: str) -> Markup:
    """Return a sentence whose parts in backticks are code."""
    parts = [escape_html(part) for part in text.split("`")]
    return Markup("".join(f"<code>{part}</code>" if i % 2 else part for i, part in enumerate(parts)))


def fragment_of(span: str | None) -> str:
    """Return the media fragment of a span, ``#t=12,17``; "" for a span of something else than time."""
    try:
        begin, end = seconds_of(span or "")
    except SampleError:
        return ""
    return f"#t={begin:g},{end:g}"


def _count(value: Any) -> str:
    return f"{int(value):,}" if value is not None else ""


def _number(value: Any) -> str:
    return f"{float(value):.4g}" if isinstance(value, int | float) else str(value)
