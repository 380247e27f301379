"""Fenced blocks of the README, the tutorial and the how-to guides, in the order in which they are read."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml
from markdown_it import MarkdownIt

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
# Begins the title of a block that no test runs; the title is shown above it.
NOT_RUN = "not run by the tests"
_INFO = re.compile(r"(?P<language>\w*)(?: +title=\"(?P<title>[^\"]*)\")?\Z")
_PROMPT = "$ "


@dataclass(frozen=True)
class Block:
    """One fenced block: its page (relative to the repository), line, language, title and text."""

    page: str
    line: int
    language: str
    title: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def is_run(self) -> bool:
        return not self.title.startswith(NOT_RUN)

    @property
    def commands(self) -> list[str]:
        """Lines of a block of commands; in a session, those after a prompt."""
        lines = self.text.splitlines()
        if self.language == "console":
            return [line.removeprefix(_PROMPT) for line in lines if line.startswith(_PROMPT)]
        return [line for line in lines if line.strip()] if self.language == "bash" else []

    @property
    def output(self) -> list[str]:
        """Lines that a session shows beside its commands."""
        return [line for line in self.text.splitlines() if not line.startswith(_PROMPT)]


def pages() -> list[Path]:
    """Return the README, then the pages of the tutorial and of the how-to guides in the order of the site."""
    text = (ROOT / "mkdocs.yml").read_text("utf-8")
    ordered = re.findall(r"- ((?:tutorial|how-to)/[\w-]+\.md)", text)
    return [ROOT / "README.md", *(DOCS / name for name in ordered)]


def all_pages() -> list[Path]:
    """Return all Markdown files of the repository that people read, the generated ones excluded."""
    return [*sorted(ROOT.glob("*.md")), *sorted(DOCS.rglob("*.md"))]


def blocks(page: Path) -> Iterator[Block]:
    """Yield the fenced blocks of a page."""
    for token in MarkdownIt().parse(page.read_text("utf-8")):
        if token.type == "fence":
            info = _INFO.match(token.info.strip())
            assert info, (
                f"{page}:{token.map}: a block's info is its language and its title, not {token.info!r}"
            )
            language, title = info["language"], info["title"] or ""
            yield Block(
                str(page.relative_to(ROOT)), (token.map or [0])[0] + 1, language, title, token.content
            )


def mm_words(command: str) -> list[list[str]]:
    """Return the words of each call of `mm` in a line of shell, without comments and assignments."""
    lexer = shlex.shlex(command, posix=True, punctuation_chars="|&;()")
    lexer.whitespace_split = True
    found: list[list[str]] = [[]]
    for word in lexer:
        if set(word) <= set("|&;()"):
            found.append([])
        else:
            found[-1].append(word)
    return [words[1:] for words in found if words[:1] == ["mm"]]


def site_pages() -> dict[str, str]:
    """Return the pages of the site's menu: path -> title of its section."""
    menu = yaml.safe_load((ROOT / "mkdocs.yml").read_text("utf-8").partition("\nnav:")[2])
    return dict(_leaves(menu, ""))


def _leaves(item: object, section: str) -> Iterator[tuple[str, str]]:
    if isinstance(item, str):
        yield item, section
    elif isinstance(item, dict):
        for name, inner in item.items():
            yield from _leaves(inner, name)
    elif isinstance(item, list):
        for inner in item:
            yield from _leaves(inner, section)
