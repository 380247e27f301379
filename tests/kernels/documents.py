"""Documents written by hand, object by object, for the tests."""

from __future__ import annotations

from collections.abc import Sequence


def write_pdf(objects: Sequence[bytes], root: int = 1, trailer: bytes = b"") -> bytes:
    """Write a PDF of objects, numbered from 1, with its table."""
    body, offsets = b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n", []
    for number, item in enumerate(objects, 1):
        offsets.append(len(body))
        body += b"%d 0 obj\n%s\nendobj\n" % (number, item)
    table = b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    return (
        body
        + b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
        + table
        + b"trailer\n<</Size %d/Root %d 0 R%s>>\nstartxref\n%d\n%%%%EOF\n"
        % (len(objects) + 1, root, trailer, len(body))
    )


def stream(content: bytes, head: bytes = b"") -> bytes:
    return b"<</Length %d%s>>\nstream\n%s\nendstream" % (len(content), head, content)


def lines_of(text: str) -> bytes:
    """Return the operators that show a text, line by line."""
    shown = b" T* ".join(
        b"(%s) Tj"
        % line.encode("latin-1").replace(b"\\", b"\\\\").replace(b"(", b"\\(").replace(b")", b"\\)")
        for line in text.split("\n")
    )
    return b"BT /F1 12 Tf 14 TL 50 780 Td %s ET" % shown


def pdf(
    pages: Sequence[str | bytes],
    box: str = "0 0 595 842",
    catalog: bytes = b"",
    info: bytes = b"",
    trailer: bytes = b"",
) -> bytes:
    """Write a PDF of pages: texts, or operators as bytes.

    Args:
        box: MediaBox of each page.
        catalog: further entries of the catalog.
        info: entries of the information dictionary.
        trailer: further entries of the trailer.
    """
    kids = b" ".join(b"%d 0 R" % (5 + 2 * number) for number in range(len(pages)))
    objects = [
        b"<</Type/Catalog/Pages 2 0 R%s>>" % catalog,
        b"<</Type/Pages/Kids[%s]/Count %d>>" % (kids, len(pages)),
        b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica/Encoding/WinAnsiEncoding>>",
        b"<<%s>>" % info,
    ]
    for number, page in enumerate(pages):
        content = page if isinstance(page, bytes) else lines_of(page) if page else b""
        objects += [
            b"<</Type/Page/Parent 2 0 R/MediaBox[%s]/Contents %d 0 R/Resources<</Font<</F1 3 0 R>>>>>>"
            % (box.encode(), 6 + 2 * number),
            stream(content),
        ]
    return write_pdf(objects, trailer=b"/Info 4 0 R" + trailer)
