"""Links of the files that people read lead somewhere; those inside the site are checked by `mkdocs build --strict`."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token

from tests.docs.blocks import DOCS, ROOT, all_pages, site_pages

PAGES = [page for page in all_pages() if page.parent == ROOT]
# Pages of the site that have no file.
_GENERATED = {"cli", "spec", "tables", "rules", "embedders", "sources", "error-classes", "settings", "json"}


def targets(page: Path) -> list[str]:
    """Return the targets of links and pictures of a page."""
    tokens: list[Token] = [
        child
        for token in MarkdownIt("commonmark").enable("table").parse(page.read_text("utf-8"))
        for child in token.children or []
    ]
    return [
        str(token.attrs.get("href") or token.attrs["src"])
        for token in tokens
        if token.type in ("link_open", "image")
    ]


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    tokens = MarkdownIt("commonmark").parse(page.read_text("utf-8"))
    titles = [
        after.content
        for token, after in zip(tokens, tokens[1:], strict=False)
        if token.type == "heading_open"
    ]
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files_and_headings(page: Path) -> None:
    broken = []
    for target in targets(page):
        if "://" in target or target.startswith("mailto:"):
            continue
        path, _, anchor = target.partition("#")
        found = (page.parent / path) if path else page
        if not found.exists() or (anchor and found.suffix == ".md" and anchor not in anchors(found)):
            broken.append(target)
    assert broken == []


def test_pictures_of_the_site_are_in_the_repository() -> None:
    """`mkdocs build --strict` lets missing ones pass, since a hook adds them."""
    named = {
        name
        for page in DOCS.rglob("*.md")
        for name in re.findall(r"\]\((?:\.\./)*pictures/([\w.-]+)\)", page.read_text("utf-8"))
    }
    assert named
    ignored = (ROOT / ".gitignore").read_text("utf-8").splitlines()
    assert [name for name in named if not (ROOT / ".github" / "pictures" / name).is_file()] == []
    assert [name for name in named if f"!.github/pictures/{name}" not in ignored] == []


def test_the_menu_has_each_page_once() -> None:
    files = {str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md")}
    assert set(site_pages()) == files | {f"reference/{name}.md" for name in _GENERATED}


def test_messages_and_docstrings_name_pages_that_exist() -> None:
    """A path such as docs/how-to/x.md in a text of the packages, benchmarks or examples."""
    named = {
        (str(path.relative_to(ROOT)), name)
        for folder in ("mm_assets", "mm_resources", "mm_embed_kernels", "benchmarks", "examples", "docker")
        for path in (ROOT / folder).rglob("*")
        if path.suffix in (".py", ".md", ".yaml", "")
        if path.is_file()
        for name in re.findall(r"docs/[\w/-]+\.(?:md|json)", path.read_text("utf-8", errors="replace"))
    }
    assert [item for item in named if not (ROOT / item[1]).is_file()] == []


def test_no_message_names_a_section_of_the_readme() -> None:
    """The README is short; messages name a page of the docs."""
    texts = [
        (str(path.relative_to(ROOT)), node.value)
        for package in ("mm_assets", "mm_resources", "mm_embed_kernels")
        for path in (ROOT / package).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
    assert [
        text for text in texts if re.search(r"README[,:]? (\"|section|under)|see README|in README", text[1])
    ] == []


def test_each_row_of_the_threat_model_names_tests_that_exist() -> None:
    text = (ROOT / "SECURITY.md").read_text("utf-8")
    rows = [line for line in text.split("## Threat model")[1].splitlines() if line.startswith("| ")]
    shown = [row.rstrip(" |").rpartition("|")[2] for row in rows[1:19]]
    assert len(shown) == 18
    for cell in shown:
        named = re.findall(r"`([^`]+)`", cell)
        assert named, cell
        for path in named:
            assert (ROOT / path).is_file() or list((ROOT / path).glob("test_*.py")), path
