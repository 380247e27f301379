"""Documents: pages in PDF by PDFium; measure their text layer; each page is a segment with its text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pyarrow as pa

from mm_embed_kernels.contracts import field
from mm_embed_kernels.errors import SampleError
from mm_embed_kernels.media.document import (
    created_at,
    is_cut_off,
    open_document,
    open_page,
    page_picture,
    page_size,
    page_text,
)
from mm_embed_kernels.media.language import detect_language
from mm_embed_kernels.media.media_type import Media
from mm_embed_kernels.modalities.base import DECODING_SIGNALS, PREVIEW_SIDE, Modality, Preview, Segment
from mm_embed_kernels.similarity import shingles

if TYPE_CHECKING:
    from pypdfium2 import PdfDocument

# A document of up to so many pages is measured completely, a longer one on as many evenly spaced pages.
MEASURED_PAGES = 200
_SPREAD = f"; of a document of more than {MEASURED_PAGES} pages, on as many evenly spaced ones"
# Work units of drawing a page, in characters.
_PAGE_COST = 1_000
_CANARY = (
    b"%PDF-1.4\n1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj\n"
    b"2 0 obj<</Type/Pages/Kids[3 0 R]/Count 1>>endobj\n"
    b"3 0 obj<</Type/Page/Parent 2 0 R/MediaBox[0 0 72 72]>>endobj\n"
    b"trailer<</Root 1 0 R>>\n%%EOF\n"
)


class Document(Modality):
    """Documents in PDF. The entity is the document; its pages are segments, from 1."""

    name = "document"
    embedder = "pages"
    libraries = ("pypdfium2", "py3langid", "rensa", "filetype")
    streams = True
    probe_seconds = 0.05
    segment_seconds = 0.05
    signals: ClassVar[list[pa.Field]] = [
        *DECODING_SIGNALS,
        field("pages", pa.int64(), "pages", ge=1),
        field("measured_pages", pa.int64(), "pages that were measured for these signals", ge=0),
        field("damaged_pages", pa.int64(), "pages that cannot be read" + _SPREAD, ge=0),
        field("text_pages", pa.int64(), "pages with a text layer; a scan has none" + _SPREAD, ge=0),
        field("characters", pa.int64(), "characters of the text layer" + _SPREAD, ge=0),
        field("words", pa.int64(), "white-space separated words of the text layer" + _SPREAD, ge=0),
        field(
            "language_confidence",
            pa.float64(),
            "probability of the detected language (py3langid)",
            ge=0,
            le=1,
        ),
        field("page_width", pa.float64(), "width of the first page that can be read, points", ge=0),
        field("page_height", pa.float64(), "height of the first page that can be read, points", ge=0),
        field("scripts", pa.int64(), "scripts of the document (JavaScript); none is ever run", ge=0),
        field("attachments", pa.int64(), "files inside the document, which are not read", ge=0),
        *shingles.SIGNALS,
    ]

    packed = shingles.PACKED

    def canary(self) -> bytes:
        return _CANARY

    def claims(self, mime: str) -> bool:
        return mime == "application/pdf"

    def probe(self, data: Media) -> dict[str, Any]:
        return self._measure(data, whole=True)

    def probe_prefix(self, data: Media) -> dict[str, Any]:
        return self._measure(data, whole=False)

    def _measure(self, data: Media, whole: bool) -> dict[str, Any]:
        """Return the row of a document; unless it must be `whole`, of the pages that can be read."""
        import pypdfium2.raw as pdfium

        mime, cut = self.require(data), is_cut_off(data)
        if cut and whole:
            raise SampleError("truncated", "the file ends before the end of its document (%%EOF)")
        with open_document(data) as document:
            texts, damaged, size = _read_pages(document)
            if damaged and whole:
                raise damaged[0]
            if not texts:
                raise damaged[0]
            body = "\n".join(text for text in texts if text)
            language, confidence = detect_language(body) if any(map(str.isalpha, body)) else (None, None)
            minhash, sketch = shingles.signature(body) if body else (None, None)
            measured = len(texts) + len(damaged)
            return {
                "mime": mime,
                "language": language,
                "captured_at": created_at(document),
                "decoder": "pdfium",
                "read_share": None if cut else round(len(texts) / measured, 6),
                "pages": len(document),
                "measured_pages": measured,
                "damaged_pages": len(damaged),
                "text_pages": sum(map(bool, texts)),
                "characters": sum(map(len, texts)),
                "words": len(body.split()),
                "language_confidence": confidence,
                "page_width": size[0],
                "page_height": size[1],
                "scripts": max(0, pdfium.FPDFDoc_GetJavaScriptActionCount(document)),
                "attachments": max(0, pdfium.FPDFDoc_GetAttachmentCount(document)),
                "minhash": minhash,
                "shingles": sketch,
            }

    def segment(self, data: Media) -> list[Segment]:
        self.require(data)
        with open_document(data) as document:
            return [_segment(document, number) for number in range(1, len(document) + 1)]

    def preview(self, data: Media) -> Preview:
        """Return the picture of the first page."""
        self.require(data)
        with open_document(data) as document, open_page(document, 1) as page:
            return Preview(picture=page_picture(page, PREVIEW_SIDE))


def _segment(document: PdfDocument, number: int) -> Segment:
    """Return a page as a segment; a page that cannot be read has no text, and fails where it is embedded."""
    try:
        with open_page(document, number) as page:
            text = page_text(page)
    except SampleError:
        text = ""
    return Segment(f"page={number}", text or None, _PAGE_COST + len(text))


def _read_pages(document: PdfDocument) -> tuple[list[str], list[SampleError], tuple[float, float]]:
    """Return the texts of the measured pages, the errors of those that cannot be read, and a page's size."""
    count = len(document)
    numbers = np.unique(np.linspace(1, count, min(count, MEASURED_PAGES)).round().astype(int)).tolist()
    texts: list[str] = []
    damaged: list[SampleError] = []
    size = None
    for number in numbers:
        try:
            with open_page(document, number) as page:
                size = size or page_size(page)
                texts.append(page_text(page))
        except SampleError as error:
            damaged.append(error)
    return texts, damaged, size or (0.0, 0.0)
