"""Documents: right pages and texts, and hostile files, each of which costs itself alone."""

from __future__ import annotations

import zlib
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest

from mm_embed_kernels.embedders import create
from mm_embed_kernels.errors import SampleError
from mm_embed_kernels.media.document import MOST_PAGES, open_document, open_page, page_picture
from mm_embed_kernels.modalities import get
from mm_embed_kernels.sandbox.sandbox import Limits, call_guarded, shared_sandbox
from tests.kernels.documents import pdf, stream, write_pdf
from tests.kernels.media_samples import encode_image, picture

PAGES = ["The cat sleeps in the sun.\nIt dreams of mice (and birds).", "Lava flows from the volcano.", ""]
DATA = pdf(PAGES)


def cause(data: bytes, function: Any = None) -> str:
    found = call_guarded(function or get("document").probe, (data,))
    return found.error_class if isinstance(found, SampleError) else ""


def test_pages_and_texts_are_those_that_were_written() -> None:
    row = get("document").probe(pdf(PAGES, info=b"/CreationDate(D:20240102030405+02'00')"))
    assert (row["mime"], row["language"], row["decoder"], row["read_share"]) == (
        "application/pdf",
        "en",
        "pdfium",
        1.0,
    )
    assert (row["pages"], row["measured_pages"], row["text_pages"], row["damaged_pages"]) == (3, 3, 2, 0)
    assert row["characters"] == sum(map(len, PAGES))
    assert row["words"] == sum(len(page.split()) for page in PAGES)
    assert (row["page_width"], row["page_height"]) == (595, 842)
    assert row["captured_at"] == datetime(2024, 1, 2, 1, 4, 5, tzinfo=UTC)
    assert get("document").probe(pdf(PAGES, info=b"/CreationDate(D:20240102030405)"))["captured_at"] is None
    segments = get("document").segment(DATA)
    assert [(each.span, each.text) for each in segments] == [
        ("page=1", PAGES[0]),
        ("page=2", PAGES[1]),
        ("page=3", None),
    ]


def test_a_page_is_drawn_as_it_lies() -> None:
    """A black square in the upper left corner, on a landscape page; the origin of a PDF is below."""
    data = pdf([b"0 0 0 rg 0 150 50 50 re f"], box="0 0 400 200")
    with open_document(data) as document, open_page(document, 1) as page:
        drawn = page_picture(page, 400)
    assert drawn.shape == (200, 400, 3)
    assert drawn[10:40, 10:40].max() == 0
    assert drawn[60:, 60:].min() == 255
    with open_document(pdf([b"1 0 0 rg 0 0 595 842 re f"])) as document, open_page(document, 1) as page:
        assert page_picture(page, 100)[50, 35].tolist() == [255, 0, 0]


def test_values_of_a_form_are_read_and_drawn() -> None:
    form = write_pdf(
        [
            b"<</Type/Catalog/Pages 2 0 R/AcroForm<</Fields[6 0 R]>>>>",
            b"<</Type/Pages/Kids[4 0 R]/Count 1>>",
            b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>",
            b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 200 100]/Contents 5 0 R/Annots[6 0 R]/Resources<</Font<</F1 3 0 R>>>>>>",
            stream(b"BT /F1 12 Tf 10 80 Td (Name) Tj ET"),
            b"<</Type/Annot/Subtype/Widget/FT/Tx/T(name)/V(Ada)/Rect[10 10 100 40]/F 4/P 4 0 R/AP<</N 7 0 R>>>>",
            stream(
                b"/Tx BMC BT /F1 12 Tf 5 10 Td (Ada) Tj ET EMC",
                b"/Type/XObject/Subtype/Form/BBox[0 0 90 30]/Resources<</Font<</F1 3 0 R>>>>",
            ),
        ]
    )
    (segment,) = get("document").segment(form)
    assert segment.text is not None
    assert segment.text.split() == ["Name", "Ada"]


def test_a_page_without_text_is_embedded_by_its_picture_in_the_space_of_texts() -> None:
    embedder: Any = create("pages")
    scan = encode_image(picture(), "PDF")
    spans = [(DATA, "page=1"), (DATA, "page=2"), (scan, "page=1")]
    inputs = np.stack([embedder.decode(data, span) for data, span in spans])
    found = embedder.embed(inputs)
    texts = create("minilm")
    assert embedder.space == texts.space
    np.testing.assert_allclose(found[:2], texts.embed(PAGES[:2]), atol=1e-4)
    pictures: Any = create("conse")
    with open_document(scan) as document, open_page(document, 1) as page:
        from PIL import Image

        drawn = pictures.prepare(Image.fromarray(page_picture(page, 512)))
    np.testing.assert_allclose(found[2], pictures.embed(drawn[None])[0], atol=1e-4)
    # A query is nearest to its page, and a long page to what stands at its end.
    assert int(np.argmax(found[:2] @ texts.embed(["an eruption"])[0])) == 1
    far = pdf(
        [
            "\n".join(
                ["The stock market fell by two percent on Monday."] * 40
                + ["Lava flows from the volcano."] * 40
            )
        ]
    )
    near = pdf(["\n".join(["The stock market fell by two percent on Monday."] * 80)])
    both = embedder.embed(np.stack([embedder.decode(data, "page=1") for data in (far, near)]))
    assert int(np.argmax(both @ texts.embed(["an eruption"])[0])) == 0


def test_pictures_of_pages_are_an_embedder_of_their_own() -> None:
    embedder: Any = create("page_pictures")
    assert embedder.space == create("conse").space
    assert embedder.decode(DATA, "page=2").shape == embedder.input_shape


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (DATA[:-200], "truncated"),
        (DATA + b"9 0 obj\n<<>>\nendobj\n", "truncated"),
        (b"%PDF-1.7\n" + bytes(range(256)) * 20 + b"\n%%EOF\n", "decode_error"),
        (pdf([]), "decode_error"),
        (
            pdf(
                ["x"],
                trailer=b"/Encrypt<</Filter/Standard/V 2/R 3/Length 128/P -4/O<%s>/U<%s>>>/ID[<00><00>]"
                % (b"11" * 32, b"22" * 32),
            ),
            "encrypted",
        ),
        (
            write_pdf(
                [
                    b"<</Type/Catalog/Pages 2 0 R>>",
                    b"<</Type/Pages/Kids[%s]/Count %d>>" % (b"3 0 R " * (MOST_PAGES + 1), MOST_PAGES + 1),
                    b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 9 9]>>",
                ]
            ),
            "decompression_bomb",
        ),
        (
            pdf(["x"], catalog=b"/NeedsRendering true/AcroForm<</Fields[]/XFA[(template) 4 0 R]>>"),
            "unsupported_format",
        ),
        (encode_image(picture(), "PNG"), "wrong_modality"),
    ],
)
def test_what_cannot_be_read_is_a_cause(data: bytes, expected: str) -> None:
    assert cause(data) == expected


def test_what_is_left_of_a_cut_document_is_kept_where_the_spec_says_so() -> None:
    row = get("document").probe_prefix(DATA[: -len("%%EOF") - 1])
    assert row["read_share"] is None
    assert row["text_pages"] == 2


def test_scripts_are_counted_and_not_run() -> None:
    script = b"/OpenAction<</S/JavaScript/JS(while(1){})>>/Names<</JavaScript<</Names[(a)<</S/JavaScript/JS(app.alert(1))>>]>>>>"
    assert get("document").probe(pdf(["x"], catalog=script))["scripts"] == 1


@pytest.mark.parametrize("box", ["0 0 1e30 1e30", "0 0 0 0", "0 0 -5 1e9", "0 0 0.001 0.001"])
def test_sizes_that_no_page_has_fill_no_memory(box: str) -> None:
    shown = call_guarded(get("document").preview, (pdf(["x"], box=box),))
    assert isinstance(shown, SampleError) or max(shown.picture.shape) <= 193


def test_a_page_as_large_as_a_town_is_drawn_small() -> None:
    data = pdf(["x"], box="0 0 999999 3")
    shown = get("document").preview(data).picture
    assert shown is not None
    assert shown.shape[1] == 192
    assert shown.shape[0] == 1


def test_bombs_cost_themselves() -> None:
    """Endless operators, a picture of ten gigabytes, and forms that contain themselves; others are read beside them."""
    page = (
        b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 595 842]/Contents 4 0 R/Resources<</XObject<</I 5 0 R>>>>>>"
    )
    head = [b"<</Type/Catalog/Pages 2 0 R>>", b"<</Type/Pages/Kids[3 0 R]/Count 1>>", page]
    pixels = b"/Type/XObject/Subtype/Image/Width 60000/Height 60000/BitsPerComponent 8/ColorSpace/DeviceRGB/Filter/FlateDecode"
    endless = zlib.compress(b"BT (a) Tj ET " * 4_000_000)
    bombs = [
        write_pdf([*head, stream(endless, b"/Filter/FlateDecode")]),
        write_pdf(
            [*head, stream(b"q 595 0 0 842 0 0 cm /I Do Q"), stream(zlib.compress(bytes(1 << 20)), pixels)]
        ),
        write_pdf(
            [
                *head,
                stream(b"/I Do /I Do"),
                stream(
                    b"/I Do /I Do",
                    b"/Type/XObject/Subtype/Form/BBox[0 0 9 9]/Resources<</XObject<</I 5 0 R>>>>",
                ),
            ]
        ),
    ]
    embedder = create("pages")
    sandbox = shared_sandbox(Limits(item_seconds=1.0, memory_bytes=2 << 30))
    *outcomes, good = sandbox.map(embedder.decode, [(data, "page=1") for data in [*bombs, DATA]])
    assert good[0] == 1
    for outcome in outcomes:
        assert isinstance(outcome, (SampleError, np.ndarray))


@pytest.mark.parametrize(("name", "rows"), [("page_pictures", 4), ("pages", 32)])
def test_a_device_that_lacks_memory_gets_smaller_batches(name: str, rows: int) -> None:
    """Those of the models that make the vectors are halved, until each has one row."""
    embedder = create(name)
    halvings = 0
    while embedder.shrink_batches():
        halvings += 1
    assert 2**halvings == rows
