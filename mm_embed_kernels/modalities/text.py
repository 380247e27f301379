"""Text: detect the encoding and decode to Unicode; measure length, symbols and language; cut into chunks."""

from __future__ import annotations

import codecs
import re
import unicodedata
from functools import cache
from typing import Any, ClassVar

import pyarrow as pa

from mm_embed_kernels.contracts import field
from mm_embed_kernels.errors import SampleError
from mm_embed_kernels.media.media_type import Media, head_of, is_printable
from mm_embed_kernels.modalities.base import PREVIEW_CHARS, Modality, Preview, Segment
from mm_embed_kernels.signals.text import text_signals
from mm_embed_kernels.similarity import shingles

# MiniLM-class models read 256 word pieces, about 1,000 characters of English.
CHUNK_CHARACTERS = 1_000
_LANGUAGE_CHARACTERS = 2_000
_ENCODING_BYTES = 200_000
# Escape sequences of ISO 2022, whose seven-bit bytes are valid ASCII as well.
_ISO_2022 = re.compile(rb"\x1b\$[@AB]|\x1b\$[()][A-G]")
# chardet gives random bytes that happen to be valid in some encoding less than 0.5%, a single word in Latin-1
# 2%.
_MIN_CONFIDENCE = 0.01


class Text(Modality):
    """Plain text in any encoding that can be detected."""

    name = "text"
    embedder = "minilm"
    hub_embedder = "st:sentence-transformers/all-MiniLM-L6-v2"
    libraries = (
        "chardet",
        "filetype",
        "ftfy",
        "phonenumbers",
        "py3langid",
        "rensa",
        "semantic-text-splitter",
    )
    probe_seconds = 0.0003
    probe_version = "3"
    segment_version = "2"
    segment_seconds = 0.0003
    signals: ClassVar[list[pa.Field]] = [
        field("encoding", pa.string(), "detected encoding of the bytes"),
        field(
            "read_share",
            pa.float64(),
            "bytes that form whole characters: below 1 where the text ends inside one (see on_partial)",
        ),
        field("characters", pa.int64(), "characters without surrounding white space", ge=0),
        field("words", pa.int64(), "white-space separated words", ge=0),
        field(
            "language_confidence",
            pa.float64(),
            "probability of the detected language (py3langid)",
            ge=0,
            le=1,
        ),
        field(
            "letter_share", pa.float64(), "letters among the characters that are not white space", ge=0, le=1
        ),
        field(
            "digit_share", pa.float64(), "digits among the characters that are not white space", ge=0, le=1
        ),
        field(
            "symbol_share",
            pa.float64(),
            "neither letters nor digits among the characters that are not white space",
            ge=0,
            le=1,
        ),
        field("distinct_word_share", pa.float64(), "distinct words among the words", ge=0, le=1),
        field("replacement_characters", pa.int64(), "U+FFFD: traces of an earlier wrong decoding", ge=0),
        field(
            "duplicate_line_share",
            pa.float64(),
            "lines that repeat an earlier one, among the lines that are not empty",
            ge=0,
            le=1,
        ),
        field(
            "repeated_5gram_share",
            pa.float64(),
            "characters in sequences of five words that occur more than once",
            ge=0,
            le=1,
        ),
        field(
            "boilerplate_share",
            pa.float64(),
            "characters in lines of web boilerplate: cookies, terms, lorem ipsum",
            ge=0,
            le=1,
        ),
        field(
            "mojibake", pa.int64(), "sequences that look like text decoded with a wrong encoding (ftfy)", ge=0
        ),
        field("emails", pa.int64(), "e-mail addresses", ge=0),
        field("phone_numbers", pa.int64(), "phone numbers in international form (phonenumbers)", ge=0),
        field("ip_addresses", pa.int64(), "public IP addresses", ge=0),
        field(
            "minhash",
            pa.binary(),
            "MinHash signature of the shingles, for near-duplicate detection (see `shingles`)",
        ),
        field("shingles", pa.binary(), "sketch of the shingles: up to 256 of their hashes"),
    ]

    def claims(self, mime: str) -> bool:
        return mime.startswith("text/")

    def require(self, data: Media) -> str:
        """Return the media type; printable content is text here, whatever signature it begins with."""
        head = head_of(data)
        return "text/plain" if head and is_printable(head) else super().require(data)

    def probe(self, data: bytes) -> dict[str, Any]:
        return self._measure(data, whole=True)

    def probe_prefix(self, data: bytes) -> dict[str, Any]:
        return self._measure(data, whole=False)

    def _measure(self, data: bytes, whole: bool) -> dict[str, Any]:
        """Return the row of a text; unless it must be `whole`, of its whole characters."""
        # An empty text is a valid sample, which the rule `empty` drops.
        mime = self.require(data) if data else "text/plain"
        text, encoding, left = decode(data)
        if left and whole:
            raise SampleError(
                "truncated",
                f"the text ends inside a character: {left} of {len(data):,} bytes are left over ({encoding})",
            )
        body = text.strip()
        words = body.split()
        solid, letters, digits = (
            sum(map(len, words)),
            sum(map(str.isalpha, body)),
            sum(map(str.isdigit, body)),
        )
        total = max(1, solid)
        language, confidence = detect_language(body) if letters else (None, None)
        minhash, sketch = shingles.signature(body)
        return {
            "mime": mime,
            "language": language,
            "encoding": encoding,
            "read_share": 1 - left / max(1, len(data)),
            "characters": len(body),
            "words": len(words),
            "language_confidence": confidence,
            "letter_share": letters / total,
            "digit_share": digits / total,
            "symbol_share": (solid - letters - digits) / total,
            "distinct_word_share": len({word.casefold() for word in words}) / max(1, len(words)),
            "replacement_characters": body.count("\ufffd"),
            **text_signals(body, words),
            "minhash": minhash,
            "shingles": sketch,
        }

    def segment(self, data: bytes) -> list[Segment]:
        text, _, _ = decode(data)
        return [
            Segment(span=f"chars={start}-{start + len(chunk)}", text=chunk, cost=len(chunk))
            for start, chunk in _splitter().chunk_indices(text)
        ]

    def preview(self, data: bytes) -> Preview:
        return Preview(text=decode(data)[0][:PREVIEW_CHARS])


def decode(data: bytes) -> tuple[str, str, int]:
    """Decode bytes to Unicode: by byte order mark, else as strict UTF-8, else by chardet's detection.

    Returns:
        The text, the name of the encoding, and the number of bytes at the end that begin a character which is
        cut off.

    Raises:
        SampleError: ``encoding_unknown`` when no encoding decodes the bytes without an error.
    """
    # UTF-32's mark begins with UTF-16's, so it is tried first.
    marks = (
        (codecs.BOM_UTF32_LE, "utf-32"),
        (codecs.BOM_UTF32_BE, "utf-32"),
        (codecs.BOM_UTF16_LE, "utf-16"),
        (codecs.BOM_UTF16_BE, "utf-16"),
    )
    encoding = next((name for mark, name in marks if data.startswith(mark)), "utf-8")
    decoder = "utf-8-sig" if encoding == "utf-8" else encoding
    if data.isascii() and _ISO_2022.search(data):
        return *_decode_detected(data), 0
    try:
        return data.decode(decoder), encoding, 0
    except UnicodeDecodeError as error:
        # The two reasons are constants of CPython's codecs, which have no other mark of an incomplete end.
        # One Latin-1 letter at the end of ASCII looks like the beginning of a UTF-8 character, so a cut UTF-8
        # text is only recognized by other characters before it.
        if error.reason in ("unexpected end of data", "truncated data") and (
            encoding != "utf-8" or not data[: error.start].isascii()
        ):
            return data[: error.start].decode(decoder), encoding, len(data) - error.start
        if encoding != "utf-8":
            raise SampleError(
                "encoding_unknown",
                f"the text has the mark of {encoding}, but byte {error.start:,} is no part of such",
            ) from None
        return *_decode_detected(data), 0


def _decode_detected(data: bytes) -> tuple[str, str]:
    """Return text and encoding of bytes that are not UTF-8; raises as `decode`."""
    import chardet

    tried = data.decode("utf-8", "replace")
    wrong = tried.count("\ufffd")
    # Legacy encodings hardly ever form valid UTF-8, so bytes that are mostly valid are damaged UTF-8.
    if sum(not char.isascii() for char in tried) - wrong > wrong:
        raise SampleError(
            "encoding_unknown",
            f"the text is UTF-8 but for {wrong} places: it was damaged, or put together from several",
        )
    guess = chardet.detect(data[:_ENCODING_BYTES])
    if not guess["encoding"] or guess["confidence"] < _MIN_CONFIDENCE:
        raise SampleError("encoding_unknown", f"{len(data):,} bytes read as text in no known encoding")
    encoding = str(codecs.lookup(guess["encoding"]).name)
    try:
        text = data.decode(encoding)
    except (UnicodeDecodeError, LookupError) as error:
        raise SampleError(
            "encoding_unknown", f"the text looks like {encoding}, which does not read all of it: {error}"
        ) from None
    if odd := sum(
        unicodedata.category(char) in ("Cc", "Cn", "Co") and char not in "\t\n\r\f\v\b\x1b" for char in text
    ):
        raise SampleError(
            "encoding_unknown",
            f"the text looks like {encoding}, but {odd} of its characters are none of any language",
        )
    return text, encoding


def detect_language(text: str) -> tuple[str, float]:
    """Return ISO 639-1 code and probability (langid.py's naive Bayes) of the first 2,000 characters."""
    language, probability = _language_model().classify(text[:_LANGUAGE_CHARACTERS])
    return str(language), min(1.0, max(0.0, float(probability)))


@cache
def _language_model() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)


@cache
def _splitter() -> Any:
    from semantic_text_splitter import TextSplitter

    return TextSplitter(CHUNK_CHARACTERS)
