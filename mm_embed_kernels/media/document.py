"""Documents in PDF, read by PDFium: their pages as texts and pictures, without running anything of them.

No form environment is opened and the library is built without JavaScript and XFA, so that actions of a
document are counted and never run.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mm_embed_kernels.errors import SampleError
from mm_embed_kernels.media.media_type import Media, open_media

if TYPE_CHECKING:
    from pypdfium2 import PdfDocument, PdfPage

# Far beyond any book, and few enough for the segments of one sample.
MOST_PAGES = 20_000
# Characters of a page: one of the smallest print has some 20,000.
MOST_CHARACTERS = 400_000
# A page is at most 14,400 units long (ISO 32000-1, annex C); PDFium reads larger ones.
_LONGEST_SIDE = 1e6
_EOF, _TAIL_BYTES = b"%%EOF", 1 << 20
_OBJECT = re.compile(rb"\d+ \d+ obj\b")
# A hyphen at the end of a line, as PDFium gives it, and what no text has.
_HYPHEN, _CONTROL = re.compile("[\x02\ufffe]\r?\n?"), re.compile("[\0-\x08\x0b\x0c\x0e-\x1f]")
# A date with its zone (ISO 32000-1, 7.9.4); without one it is no point in time.
_DATE = re.compile(r"D:(\d{4})(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)(?:Z|([+-])(\d\d)'?(\d\d)?)")


@contextmanager
def open_document(data: Media) -> Iterator[PdfDocument]:
    """Open a PDF.

    Raises:
        SampleError: ``encrypted`` where it needs a password, ``decompression_bomb`` for more than
            `MOST_PAGES` pages, ``unsupported_format`` for pages that an XFA form makes, ``no_segments`` for
            none, ``decode_error`` for what PDFium refuses.
    """
    import pypdfium2
    import pypdfium2.raw as pdfium

    with open_media(data) as stream:
        try:
            document = pypdfium2.PdfDocument(stream if isinstance(data, Path) else data)
        except pypdfium2.PdfiumError as error:
            raise _opening_error(error) from error
        try:
            pages = len(document)
            if pages > MOST_PAGES:
                raise SampleError(
                    "decompression_bomb", f"the document has {pages:,} pages, more than {MOST_PAGES:,}"
                )
            if pdfium.FPDF_GetFormType(document) == pdfium.FORMTYPE_XFA_FULL:
                raise SampleError(
                    "unsupported_format", "the pages are made by an XFA form, which has no fixed pages"
                )
            if not pages:
                raise SampleError("no_segments", "the document has no pages")
            yield document
        finally:
            document.close()


def _opening_error(error: Any) -> SampleError:
    import pypdfium2.raw as pdfium

    if error.err_code in (pdfium.FPDF_ERR_PASSWORD, pdfium.FPDF_ERR_SECURITY):
        return SampleError("encrypted", "the document is encrypted and needs a password")
    return SampleError("decode_error", f"PDFium refuses the document: {error}")


@contextmanager
def open_page(document: PdfDocument, number: int) -> Iterator[PdfPage]:
    """Open a page with the values of its form fields in place, as viewers show and print them.

    Args:
        number: from 1.

    Raises:
        SampleError: ``decode_error`` for a page that is damaged or absent.
    """
    import pypdfium2
    import pypdfium2.raw as pdfium

    try:
        page = document[number - 1]
        if pdfium.FPDF_GetFormType(document) != pdfium.FORMTYPE_NONE:
            pdfium.FPDFPage_Flatten(page, pdfium.FLAT_NORMALDISPLAY)
            page.close()
            page = document[number - 1]
    except (pypdfium2.PdfiumError, IndexError) as error:
        raise SampleError("decode_error", f"page {number} cannot be read: {error}") from error
    try:
        yield page
    finally:
        page.close()


def page_text(page: PdfPage) -> str:
    """Return the text layer of a page; "" where it has none.

    Raises:
        SampleError: ``decompression_bomb`` for more than `MOST_CHARACTERS`.
    """
    textpage = page.get_textpage()
    try:
        count = textpage.count_chars()
        if count > MOST_CHARACTERS:
            raise SampleError(
                "decompression_bomb", f"a page has {count:,} characters, more than {MOST_CHARACTERS:,}"
            )
        text = textpage.get_text_range() if count > 0 else ""
    finally:
        textpage.close()
    return _CONTROL.sub("", _HYPHEN.sub("", text).replace("\r\n", "\n").replace("\r", "\n")).strip()


def page_size(page: PdfPage) -> tuple[float, float]:
    """Return width and height of a page as it is displayed, in points (1/72 inch).

    Raises:
        SampleError: ``decode_error`` for a size that no page has.
    """
    width, height = page.get_size()
    if not (0 < width <= _LONGEST_SIDE and 0 < height <= _LONGEST_SIDE):
        raise SampleError("decode_error", f"a page of {width:g} x {height:g} points cannot be drawn")
    return width, height


def page_picture(page: PdfPage, side: int) -> np.ndarray[Any, Any]:
    """Draw a page on white, uint8 [height, width, 3], RGB; its longer side has `side` pixels.

    Raises:
        SampleError: as `page_size`.
    """
    width, height = page_size(page)
    bitmap = page.render(scale=side / max(width, height), rev_byteorder=True)
    try:
        pixels = np.asarray(bitmap.to_numpy())
        if pixels.ndim == 2:
            pixels = pixels[..., None]
        return pixels[..., :3].copy() if pixels.shape[2] >= 3 else np.repeat(pixels[..., :1], 3, axis=2)
    finally:
        bitmap.close()


def is_cut_off(data: Media) -> bool:
    """Return whether the end of a PDF is missing; PDFium opens what is left of it without a word.

    A PDF ends with ``%%EOF``. Some earlier part may as well, with objects behind it.
    """
    with open_media(data) as stream:
        size = stream.seek(0, 2)
        stream.seek(max(0, size - _TAIL_BYTES))
        tail = stream.read()
    end = tail.rfind(_EOF)
    return end < 0 or _OBJECT.search(tail, end) is not None


def created_at(document: PdfDocument) -> datetime | None:
    """Return when the document says that it was made; None where it says so without a time zone."""
    found = _DATE.match(document.get_metadata_value("CreationDate"))
    if not found:
        return None
    try:
        year, month, day, hour, minute, second = map(int, found.groups()[:6])
        at = datetime(year, month, day, hour, minute, second, tzinfo=UTC)
        offset = timedelta(hours=int(found[8] or 0), minutes=int(found[9] or 0))
        return at + (offset if found[7] == "-" else -offset)
    except (ValueError, OverflowError):
        return None


def page_of(span: str) -> int:
    """Return the number of the page of a span ``page=N``."""
    return int(span.removeprefix("page="))
