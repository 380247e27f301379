"""Index pages of web servers: the links below a URL, page by page, within bounds known beforehand."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from urllib.parse import unquote, urljoin, urlsplit

from mm_embed_kernels.errors import SampleError, UserError
from mm_embed_kernels.urls import redact_url
from mm_resources.objects.http_objects import HttpObjects

# Bytes of a page, characters of a link, pages and links of one source.
_PAGE_BYTES, _LINK, _PAGES, _LINKS = 16 << 20, 4_096, 20_000, 20_000_000
# A tag ends at the next bracket, so that a page costs one pass, whatever is in it.
_ANCHOR = re.compile(r"<[aA]\s(?:[^<>]{0,2000}?\s)?(?:href|HREF)\s?=\s?[\"']?([^\"'<>\s]{1,4096})")
_PLAIN = re.compile(r"https?://[-a-zA-Z0-9@:%_+.~#?&/=]{1,4096}")


class IndexPages:
    """The files that the index pages at and below a URL link.

    Args:
        depth: folders below the URL that are entered.
    """

    def __init__(self, http: HttpObjects, root: str, depth: int) -> None:
        self.http, self.root, self.depth = http, root.rstrip("/") + "/", depth
        self._pages: set[str] = set()
        self._links = 0

    def files(self) -> Iterator[tuple[str, SampleError | None]]:
        """Yield the URL of each linked file, sorted page by page; of a page that cannot be read, its error.

        Raises:
            UserError: when the first page cannot be read, or pages link each other without end.
        """
        stack = [(self.root, 1)]
        while stack:
            page, level = stack.pop()
            if page in self._pages:
                continue
            if len(self._pages) >= _PAGES:
                raise UserError(
                    f"{redact_url(self.root)} has more than {_PAGES:,} index pages; name fewer folders"
                )
            self._pages.add(page)
            try:
                links = self._read(page)
            except SampleError as error:
                if level == 1:
                    raise UserError(str(error)) from None
                yield page, error
                continue
            yield from ((link, None) for link in links if not link.endswith("/"))
            if level < self.depth:
                stack.extend((link, level + 1) for link in reversed(links) if link.endswith("/"))

    def _read(self, page: str) -> list[str]:
        """Return the links of a page to what lies below it, sorted.

        Raises:
            SampleError: as `HttpObjects.fetch`.
        """
        text = self.http.page(page, _PAGE_BYTES)
        found = {html.unescape(match[1]) for match in _ANCHOR.finditer(text)}
        found |= {match[0] for match in _PLAIN.finditer(text)}
        self._links += len(found)
        if self._links > _LINKS:
            raise UserError(f"{redact_url(self.root)} links more than {_LINKS:,} files; name fewer folders")
        return sorted(filter(None, (_below(page, link) for link in found)))


def _below(page: str, link: str) -> str | None:
    """Return the URL of a link to what lies below a page; None for any other link."""
    try:
        url = urljoin(page, link)
        parts, base = urlsplit(url), urlsplit(page)
    except ValueError:
        return None
    # A server may write its links with the other of the two schemes.
    is_here = {parts.scheme, base.scheme} <= {"http", "https"} and parts.netloc == base.netloc
    below = parts.path.removeprefix(base.path)
    if not is_here or below in ("", parts.path) or len(url) > _LINK:
        return None
    return None if ".." in unquote(below).replace("\\", "/").split("/") else url
