"""Texts for a terminal, Markdown and HTML. The escape sequences are those of ECMA-48 and xterm."""

from __future__ import annotations

import html
import json

import pytest

from mm_embed_kernels.escapes import escape_html, escape_json, escape_markdown, escape_terminal

HOSTILE = "a\x1b[2J\x1b]52;c;QUFB\x07b\x9b31m\u202ec\x08\x7f\ud800"


def test_no_control_reaches_a_terminal() -> None:
    shown = escape_terminal(HOSTILE)
    assert shown == r"a\x1b[2J\x1b]52;c;QUFB\x07b\x9b31m\u202ec\x08\x7f\ud800"
    shown.encode("utf-8")


@pytest.mark.parametrize(
    "text", ["plain", "Grüße, 世界 👩‍👧", "two\nlines\tand a tab", "[bold]brackets[/bold]"]
)
def test_other_texts_are_unchanged(text: str) -> None:
    assert escape_terminal(text) == text


def test_json_has_the_same_value_without_controls() -> None:
    text = escape_json(json.dumps({"name": HOSTILE, "tag": "\U000e0041"}, indent=2, ensure_ascii=False))
    assert json.loads(text) == {"name": HOSTILE, "tag": "\U000e0041"}
    assert all(char == "\n" or char.isprintable() for char in text)


def test_markdown_shows_a_text_as_it_is() -> None:
    """A backslash before ASCII punctuation is that character (CommonMark 2.4)."""
    shown = escape_markdown("![x](http://evil/p.png) | <img src=x> `code` *b*\n# head")
    assert "\n" not in shown
    assert "![" not in shown
    for mark in "[]<>|!`*#":
        assert mark not in shown.replace(f"\\{mark}", "")


def test_html_is_escaped_once() -> None:
    assert escape_html("<script>\x1b'\"&") == html.escape("<script>\ufffd'\"&", quote=True)
