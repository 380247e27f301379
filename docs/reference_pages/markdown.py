"""Markdown of the generated pages: tables, and docstrings in Google's form."""

from __future__ import annotations

import inspect
import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import griffe

# A docstring of a class is parsed without its signature, which griffe warns about.
logging.getLogger("griffe").setLevel(logging.ERROR)


def write_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a table; cells are Markdown, except that a pipe and a line break end no cell."""
    lines = [list(map(_cell, columns)), ["---"] * len(columns), *(list(map(_cell, row)) for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def code(text: object) -> str:
    """Return a text as code, or nothing for an empty one."""
    return f"`{text}`" if text not in (None, "") else ""


def sentence(text: str) -> str:
    """Return a text of one paragraph, with the double back-quotes of a docstring as code."""
    return re.sub(r"``(.+?)``", r"`\1`", " ".join(text.split()))


def read_docstring(item: Any) -> tuple[str, Mapping[str, str]]:
    """Return the text of a class's docstring, and the descriptions of its attributes by name."""
    docstring = griffe.Docstring(inspect.getdoc(item) or "")
    text, attributes = [], {}
    for section in docstring.parse("google"):
        if section.kind is griffe.DocstringSectionKind.text:
            text += [sentence(part) for part in str(section.value).split("\n\n")]
        elif section.kind is griffe.DocstringSectionKind.attributes:
            attributes |= {each.name: sentence(each.description) for each in section.value}
    return "\n\n".join(text), attributes


def generated_page(title: str, origin: str, *parts: str) -> str:
    """Return a page with its title, and a line on where its content comes from."""
    return "\n\n".join([f"# {title}", f"*Generated from {origin}.*", *parts]) + "\n"


def _cell(value: object) -> str:
    return " ".join(str(value).split()).replace("|", "\\|")
