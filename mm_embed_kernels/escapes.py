"""Texts of strangers (names, labels, messages) for a terminal, for Markdown and for HTML, each in one place.

A file name may hold escape sequences that move the cursor or write the clipboard, marks that turn the
direction of a line, and what Markdown and HTML read as markup.
"""

from __future__ import annotations

import html
import re
import unicodedata
from typing import Any

# Controls and formats that are part of a text: line ends, tabs, the joiner of emoji, the non-joiner of
# Persian and Indic words, and soft hyphens.
_TEXT = "\n\t\u200d\u200c\u00ad"
_SUSPECT = re.compile(r"[^\x20-\x7e]")
_HIDDEN = ("Cc", "Cf", "Cs")
_MARKUP = re.compile(r"([\\`*\[\]<>|!~&#$])")
# A longer text is no name, and a page or a line of a terminal is none for it.
_LONGEST = 10_000


def escape_terminal(text: Any) -> str:
    r"""Return a text whose control characters are written out, as ``\x1b``; lines and tabs stay."""
    return _SUSPECT.sub(lambda found: _write_out(found[0]), str(text))


def escape_surrogates(text: str) -> str:
    r"""Return a text that a table can hold: unpaired surrogates are written out, as ``\udc80``."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def escape_markdown(text: Any) -> str:
    """Return a text in one line for Markdown or a cell of its tables, where it shows as it is."""
    flat = " ".join(escape_terminal(text)[:_LONGEST].split())
    return _MARKUP.sub(r"\\\1", flat)


def escape_html(text: Any) -> str:
    """Return a text for HTML; characters that control a terminal or a line's direction are replaced."""
    visible = _SUSPECT.sub(lambda found: "\ufffd" if _is_hidden(found[0]) else found[0], str(text))
    return html.escape(visible, quote=True)


def escape_json(text: str) -> str:
    """Return JSON whose control characters beyond ASCII's first 32 are escaped too; its value is the same."""
    return _SUSPECT.sub(
        lambda found: (
            "".join(f"\\u{unit:04x}" for unit in _utf16(found[0])) if _is_hidden(found[0]) else found[0]
        ),
        text,
    )


def _is_hidden(char: str) -> bool:
    return char not in _TEXT and unicodedata.category(char) in _HIDDEN


def _write_out(char: str) -> str:
    if not _is_hidden(char):
        return char
    return f"\\x{ord(char):02x}" if ord(char) < 0x100 else f"\\u{ord(char):04x}"


def _utf16(char: str) -> list[int]:
    data = char.encode("utf-16-be", "surrogatepass")
    return [int.from_bytes(data[place : place + 2], "big") for place in range(0, len(data), 2)]
