from __future__ import annotations

import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mm_embed_kernels.errors import SampleError
from mm_embed_kernels.modalities import get
from mm_embed_kernels.modalities.text import CHUNK_CHARACTERS, decode
from tests.kernels.media_samples import ENGLISH, GERMAN, RUSSIAN

TEXT = get("text")


@pytest.mark.parametrize(
    ("text", "codec", "encoding"),
    [
        (ENGLISH, "utf-8", "utf-8"),
        (ENGLISH, "utf-8-sig", "utf-8"),
        (RUSSIAN, "utf-8", "utf-8"),
        (RUSSIAN, "utf-16", "utf-16"),
        ("\ufeff" + RUSSIAN, "utf-16-be", "utf-16"),
        (RUSSIAN, "cp1251", "cp1251"),
        # Several single-byte encodings read German alike.
        (GERMAN, "latin-1", None),
        (RUSSIAN, "utf-32", None),
    ],
)
def test_decoding(text: str, codec: str, encoding: str | None) -> None:
    found, name, left = decode(text.encode(codec))
    assert left == 0
    assert found == text.removeprefix("\ufeff")
    assert encoding in (None, name)
    row = TEXT.probe(text.encode(codec))
    assert row["characters"] == len(found)
    assert row["encoding"] == name
    assert row["mime"] == "text/plain"


@given(st.text(max_size=300))
def test_utf8_is_read_as_it_is(text: str) -> None:
    assert decode(text.encode()) == (text.removeprefix("\ufeff"), "utf-8", 0)


@given(st.binary(max_size=200))
def test_any_bytes_are_decoded_or_refused(data: bytes) -> None:
    try:
        text, encoding, _ = decode(data)
    except SampleError as error:
        assert error.error_class == "encoding_unknown"
    else:
        assert encoding
        text.encode()  # no unpaired surrogates reach a table


LEGACY = [
    (RUSSIAN.replace("—", "-"), ["cp1251", "koi8-r", "iso8859-5", "cp866"]),
    (GERMAN, ["latin-1", "cp1252"]),
    ("Le garçon a mangé un gâteau près de la forêt, où l'été était déjà passé.", ["latin-1", "cp850"]),
    ("Zażółć gęślą jaźń. Warszawa jest stolicą Polski i największym miastem kraju.", ["cp1250", "iso8859-2"]),
    ("Η Αθήνα είναι η πρωτεύουσα της Ελλάδας και η μεγαλύτερη πόλη της χώρας.", ["cp1253", "iso8859-7"]),
    ("東京は日本の首都です。人口は一千万人以上です。", ["shift_jis", "euc-jp", "iso2022_jp"]),
    ("北京是中华人民共和国的首都，人口超过两千万。这是一个测试文本。", ["gb18030"]),
    ("臺北市是中華民國的首都，也是臺灣的政治、經濟和文化中心。", ["big5"]),
    ("서울은 대한민국의 수도이다. 인구는 약 천만 명이다.", ["euc-kr"]),
    ("café", ["latin-1"]),
]


@pytest.mark.parametrize(("text", "codec"), [(text, codec) for text, codecs in LEGACY for codec in codecs])
def test_legacy_encodings_are_detected(text: str, codec: str) -> None:
    assert decode(text.encode(codec))[0] == text


@pytest.mark.parametrize(
    "data",
    [
        RUSSIAN.encode()[:100] + b"\xff" + RUSSIAN.encode()[100:],
        bytes(range(128, 256)) * 3,
        b"\xff\xfe\x00\xd8\x00\xd8",
        b"ab\x81\x8d\x8f\x90\x9d" * 9,
    ],
    ids=["damaged utf-8", "all bytes", "half a surrogate", "bytes that mean nothing"],
)
def test_what_is_no_text_is_no_mojibake(data: bytes) -> None:
    with pytest.raises(SampleError) as caught:
        TEXT.probe(data)
    assert caught.value.error_class in ("encoding_unknown", "unsupported_format")


@pytest.mark.parametrize("codec", ["utf-8", "utf-16"])
def test_a_text_that_ends_inside_a_character(codec: str) -> None:
    """`on_partial` decides."""
    data = RUSSIAN.replace(".", "").encode(codec)[:-1]
    with pytest.raises(SampleError) as caught:
        TEXT.probe(data)
    assert caught.value.error_class == "truncated"
    row = TEXT.probe_prefix(data)
    assert row["read_share"] == 1 - 1 / len(data)
    assert RUSSIAN.replace(".", "").startswith(TEXT.segment(data)[0].text or "?")


@pytest.mark.parametrize(("text", "language"), [(ENGLISH, "en"), (GERMAN, "de"), (RUSSIAN, "ru")])
def test_language(text: str, language: str) -> None:
    row = TEXT.probe(text.encode())
    assert row["language"] == language
    assert row["language_confidence"] > 0.9


@pytest.mark.parametrize("text", ["", "   \n\t ", "12 34 !?", "…"])
def test_without_letters_there_is_no_language(text: str) -> None:
    row = TEXT.probe(text.encode())
    assert (row["language"], row["language_confidence"], row["letter_share"]) == (None, None, 0)


def test_signals() -> None:
    row = TEXT.probe("  Ab ab, 12 \ufffd\n".encode())
    assert (row["characters"], row["words"], row["replacement_characters"]) == (len("Ab ab, 12 \ufffd"), 4, 1)
    assert row["letter_share"] == 4 / 8
    assert row["digit_share"] == 2 / 8
    assert row["symbol_share"] == 2 / 8
    assert row["distinct_word_share"] == 1  # "ab" and "ab," are two words
    assert TEXT.probe(b"ab AB ab cd")["distinct_word_share"] == 0.5


@pytest.mark.parametrize("data", [b"", b" \n"])
def test_empty_text_is_a_sample(data: bytes) -> None:
    """A rule drops it; it is not broken."""
    row = TEXT.probe(data)
    assert (row["characters"], row["words"], row["mime"]) == (0, 0, "text/plain")
    assert TEXT.segment(data) == []


@pytest.mark.parametrize("data", [bytes(range(256)), b"words\0words", b"\x01\x02\x03\x04" * 20])
def test_binary_is_refused(data: bytes) -> None:
    with pytest.raises(SampleError) as caught:
        TEXT.probe(data)
    assert caught.value.error_class == "unsupported_format"


@pytest.mark.parametrize(
    "text",
    [
        "BMW makes cars in Bavaria.",
        "GIF is an old format for pictures.",
        "MZ is the signature of DOS programs.",
        "CWS and FWS are Flash signatures.",
        "ID3 tags name the artist of a song.",
        "BZh are three letters.",
    ],
)
def test_words_that_are_also_signatures(text: str) -> None:
    assert TEXT.probe(text.encode())["words"] == len(text.split())


words = st.text(st.characters(exclude_categories=("Cs", "Zs", "Zl", "Zp", "Cc")), min_size=1, max_size=30)
gaps = st.sampled_from([" ", "  ", "\n", "\n\n", "\r\n", "\t", ". ", "\u3000", "\u2028", "\x0b", ", "])
long_texts = st.lists(st.tuples(words, gaps), max_size=120).map(
    lambda parts: "".join(word + gap for word, gap in parts)
)


@settings(max_examples=80)
@given(long_texts | st.text(max_size=60))
@example("x" * (3 * CHUNK_CHARACTERS + 1))
@example(("word " * 150 + "\n\n") * 9)
@example("👩‍👩‍👧‍👦" * 400)
@example("\ufeff \ufeffa")
@example("a\x1cb\x85c")
def test_spans_are_places_in_the_text(text: str) -> None:
    data = text.encode()
    body, found = decode(data)[0], TEXT.segment(data)
    covered, last = [False] * len(body), 0
    for item in found:
        place = re.fullmatch(r"chars=(\d+)-(\d+)", item.span)
        assert place is not None
        start, end = int(place[1]), int(place[2])
        assert body[start:end] == item.text
        assert last <= start < end
        assert item.cost == end - start <= CHUNK_CHARACTERS
        covered[start:end] = [True] * (end - start)
        last = end
    assert [char for char, seen in zip(body, covered, strict=True) if not seen and not char.isspace()] == []


def test_chunks_end_where_paragraphs_do() -> None:
    paragraph = ENGLISH * 6
    found = TEXT.segment(f"{paragraph}\n\n{paragraph}\n\n{paragraph}".encode())
    assert [item.text for item in found] == [paragraph] * 3
